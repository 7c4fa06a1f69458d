package egress

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"
)

// ViaProxy gives a Dial that goes through an HTTP proxy by CONNECT (RFC 9110, 9.3.6), for hosts whose own
// way out is one. The proxy is http://[user:password@]host:port or https://….
func ViaProxy(proxy *url.URL) (func(ctx context.Context, network, address string) (net.Conn, error), error) {
	if proxy.Scheme != "http" && proxy.Scheme != "https" || proxy.Hostname() == "" {
		return nil, invalid("the proxy is no http or https URL with a host", "set HTTPS_PROXY to http://host:port, or unset it")
	}
	port := proxy.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[proxy.Scheme]
	}
	at := net.JoinHostPort(proxy.Hostname(), port)
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{KeepAlive: keepAlive}).DialContext(ctx, network, at)
		if err != nil {
			return nil, fmt.Errorf("the proxy: %w", err)
		}
		deadline := time.Now().Add(dialTimeout)
		if d, ok := ctx.Deadline(); ok {
			deadline = d
		}
		_ = conn.SetDeadline(deadline)                                                   // fails only on a closed connection
		stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // wakes what waits
		if proxy.Scheme == "https" {
			conn = tls.Client(conn, &tls.Config{ServerName: proxy.Hostname()})
		}
		out, err := connect(conn, proxy, address)
		if !stop() && err == nil {
			err = ctx.Err()
		}
		if err != nil {
			conn.Close()
			return nil, fmt.Errorf("the proxy: %w", err)
		}
		return out, conn.SetDeadline(time.Time{})
	}, nil
}

func connect(conn net.Conn, proxy *url.URL, address string) (net.Conn, error) {
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: address}, Host: address, Header: http.Header{}}
	if proxy.User != nil {
		password, _ := proxy.User.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(proxy.User.Username()+":"+password)))
	}
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answered %s", resp.Status)
	}
	if in.Buffered() > 0 { // a server that speaks first
		return &buffered{conn, in}, nil
	}
	return conn, nil
}

type buffered struct {
	net.Conn
	in *bufio.Reader
}

func (b *buffered) Read(p []byte) (int, error) { return b.in.Read(p) }
