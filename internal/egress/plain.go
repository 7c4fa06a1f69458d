package egress

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// plain carries HTTP without TLS. Each request says its host anew, and is judged by it.
type plain struct {
	g         *Gate
	conns     chan net.Conn
	closed    chan struct{}
	once      sync.Once
	server    *http.Server
	transport *http.Transport
}

// plainConn is a connection of the sandbox's whose first bytes were HTTP.
type plainConn struct {
	net.Conn
	in   *bufio.Reader
	to   target
	dst  netip.AddrPort
	once sync.Once
	done chan struct{}
}

func (c *plainConn) Read(b []byte) (int, error) { return c.in.Read(b) }

func (c *plainConn) Close() error {
	c.once.Do(func() { close(c.done) })
	return c.Conn.Close()
}

type plainKey struct{}

func newPlain(g *Gate) *plain {
	p := &plain{g: g, conns: make(chan net.Conn), closed: make(chan struct{})}
	p.transport = &http.Transport{
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return p.dial(ctx, address)
		},
		DisableCompression: true, MaxIdleConnsPerHost: 4, MaxIdleConns: 32, IdleConnTimeout: 30 * time.Second,
		ResponseHeaderTimeout: 10 * time.Minute, MaxResponseHeaderBytes: 1 << 20,
	}
	proxy := &httputil.ReverseProxy{
		Transport: p.transport, FlushInterval: -1, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme = "http"
			r.Out.URL.Host = r.Out.Context().Value(hostKey{}).(string)
			r.Out.Host = r.In.Host
			if _, ok := r.In.Header["User-Agent"]; !ok {
				r.Out.Header["User-Agent"] = nil // none of ours
			}
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			var refused errRefused
			if errors.As(err, &refused) {
				answer(w, http.StatusForbidden, "EGRESS_DENIED", r.Host, 0, refused.reason)
				return
			}
			answer(w, http.StatusBadGateway, "EGRESS_FAILED", r.Host, 0, "the host was not reached: "+err.Error())
		},
	}
	p.server = &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.serve(w, r, proxy) }),
		ReadHeaderTimeout: helloTimeout, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog:    slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, plainKey{}, c) },
	}
	g.work.Go(func() { _ = p.server.Serve(p) }) // ends with close
	return p
}

type hostKey struct{}

// serve judges one request and passes it on.
func (p *plain) serve(w http.ResponseWriter, r *http.Request, proxy http.Handler) {
	c := r.Context().Value(plainKey{}).(*plainConn)
	port := c.to.port
	fail := func(status int, code, host, reason string) {
		p.g.refuse(c.dst, host, reason)
		answer(w, status, code, host, port, reason)
	}
	if r.Method == http.MethodConnect || r.URL.Host != "" {
		fail(http.StatusForbidden, "EGRESS_DENIED", r.Host, "this is no proxy: connect to the host itself")
		return
	}
	t := c.to
	host, text, err := net.SplitHostPort(r.Host)
	if err != nil {
		host, text = r.Host, ""
	}
	if text != "" {
		if n, err := strconv.ParseUint(text, 10, 16); err != nil || uint16(n) != port {
			fail(http.StatusBadRequest, "EGRESS_DENIED", r.Host, fmt.Sprintf("the request names another port than the %d that was connected to", port))
			return
		}
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		if t.name != "" || addr.Unmap() != t.addr {
			fail(http.StatusForbidden, "EGRESS_DENIED", host, "the request names an address that was not connected to")
			return
		}
	} else if host != "" {
		name, err := normalName(host)
		if err != nil {
			fail(http.StatusBadRequest, "EGRESS_DENIED", host, "it is no host name: "+err.Error())
			return
		}
		t = target{name: name, port: port}
	}
	// Both what was connected to, if that was a name, and what the request names.
	for _, one := range []target{c.to, t} {
		if one.name == "" && t.name != "" {
			continue
		}
		if v := p.g.judge(one); !v.Allowed {
			fail(http.StatusForbidden, "EGRESS_DENIED", one.host(), v.Reason)
			return
		}
	}
	p.g.stats.connections.Add(1)
	body := &counted{ReadCloser: r.Body, n: &p.g.stats.up}
	r.Body = body
	ctx := context.WithValue(r.Context(), hostKey{}, net.JoinHostPort(t.host(), fmt.Sprint(port)))
	proxy.ServeHTTP(&countedWriter{ResponseWriter: w, n: &p.g.stats.down}, r.WithContext(ctx))
}

// dial is the transport's: its address is one that serve has allowed for this gate.
func (p *plain) dial(ctx context.Context, address string) (net.Conn, error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, err
	}
	t := target{name: host, port: uint16(port)}
	if addr, err := netip.ParseAddr(host); err == nil {
		t = target{addr: addr, port: uint16(port)}
	}
	// Again: the transport also dials in the background, after the policy may have changed.
	if v := p.g.judge(t); !v.Allowed {
		return nil, errRefused{v.Reason}
	}
	return p.g.dial(ctx, t)
}

// answer refuses a request in words a program can read.
func answer(w http.ResponseWriter, status int, code, host string, port uint16, reason string) {
	body := map[string]any{"code": code, "message": "the sandbox may not reach this host: " + reason, "host": host,
		"hint": "allow it under [network] where Tongs is configured"}
	if code == "EGRESS_FAILED" {
		body["message"], body["hint"] = reason, "try again later"
	}
	if port != 0 {
		body["port"] = port
	}
	text, err := json.Marshal(body)
	if err != nil { // strings and a number always encode
		text = []byte("{}")
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Connection", "close")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // the program may be gone
}

// hand gives a connection to the server and waits for its end. It is false when the gate is closing.
func (p *plain) hand(c *plainConn) bool {
	_ = c.Conn.SetReadDeadline(time.Time{})
	select {
	case p.conns <- c:
	case <-p.closed:
		return false
	}
	<-c.done
	p.g.untrack(c.Conn)
	return true
}

func (p *plain) close() {
	p.once.Do(func() { close(p.closed) })
	p.server.Close()
	p.transport.CloseIdleConnections()
}

// Accept, Close and Addr make the connections that are handed over a listener.
func (p *plain) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *plain) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *plain) Addr() net.Addr { return &net.TCPAddr{} }

type adder interface{ Add(int64) int64 }

// counted counts what is read of a request's body.
type counted struct {
	io.ReadCloser
	n adder
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.ReadCloser.Read(b)
	c.n.Add(int64(n))
	return n, err
}

// countedWriter counts what is written of an answer's body.
type countedWriter struct {
	http.ResponseWriter
	n adder
}

func (c *countedWriter) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b)
	c.n.Add(int64(n))
	return n, err
}

func (c *countedWriter) Unwrap() http.ResponseWriter { return c.ResponseWriter }
