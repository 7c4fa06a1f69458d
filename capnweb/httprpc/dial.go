package httprpc

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/coder/websocket"
	"github.com/tongs-dev/tongs/capnweb"
)

// Defaults of [DialOptions] and [Handler].
const (
	DefaultPingInterval     = 30 * time.Second
	DefaultHandshakeTimeout = 30 * time.Second
)

// DialOptions say how to connect. The zero value is useful.
type DialOptions struct {
	// Main is our main object, for the peer to call; see [capnweb.NewSession].
	Main any
	// Header is sent with the request that opens the connection.
	Header http.Header
	// DialContext opens the connection; nil means a TCP connection to the URL's host.
	// It may return any net.Conn.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)
	// TLS is the configuration for wss URLs.
	TLS *tls.Config
	// HandshakeTimeout bounds connecting: 30 s.
	HandshakeTimeout time.Duration
	// PingInterval is how often the peer has to show that it is there, and how long
	// it has to answer: 30 s. Negative means never.
	PingInterval time.Duration
	// MaxMessageBytes is the longest message accepted: the limit of Session, else 32 MiB.
	MaxMessageBytes int
	// Session are the options of the session.
	Session []capnweb.Option
}

// HandshakeError is returned by [Dial] when the server answered, but not by
// switching to WebSocket.
type HandshakeError struct {
	StatusCode int
	// Body is the beginning of the answer, at most 1 KiB.
	Body string
}

func (e *HandshakeError) Error() string {
	return fmt.Sprintf("httprpc: the server answered %d %s instead of opening a WebSocket: %s",
		e.StatusCode, http.StatusText(e.StatusCode), e.Body)
}

// Dial opens a session over a WebSocket. The URL's scheme is ws, wss, http or
// https. ctx bounds connecting only; the session lives until it is closed or lost.
func Dial(ctx context.Context, url string, opts *DialOptions) (*capnweb.Session, error) {
	if opts == nil {
		opts = &DialOptions{}
	}
	timeout := opts.HandshakeTimeout
	if timeout <= 0 {
		timeout = DefaultHandshakeTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	var cork *corkConn
	dial := opts.DialContext
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	tr := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			cork = &corkConn{Conn: c}
			return cork, nil
		},
		DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			cfg := opts.TLS.Clone()
			if cfg == nil {
				cfg = &tls.Config{MinVersion: tls.VersionTLS12}
			}
			if cfg.ServerName == "" {
				cfg.ServerName, _, _ = net.SplitHostPort(addr)
			}
			tc := tls.Client(c, cfg)
			if err := tc.HandshakeContext(ctx); err != nil {
				_ = c.Close()
				return nil, err
			}
			cork = &corkConn{Conn: tc}
			return cork, nil
		},
	}
	ws, resp, err := websocket.Dial(ctx, url, &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: tr, CheckRedirect: noRedirect},
		HTTPHeader: opts.Header,
	})
	if err != nil {
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			e := &HandshakeError{StatusCode: resp.StatusCode}
			if resp.Body != nil {
				b, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
				e.Body = string(b)
				_ = resp.Body.Close()
			}
			tr.CloseIdleConnections()
			return nil, e
		}
		tr.CloseIdleConnections()
		return nil, fmt.Errorf("httprpc: connect to %s: %w", url, err)
	}
	t := newTransport(ws, cork, messageLimit(opts.MaxMessageBytes), pingInterval(opts.PingInterval))
	return capnweb.NewSession(t, opts.Main, sessionOptions(opts.MaxMessageBytes, opts.Session)...), nil
}

// noRedirect: credentials in Header must not travel to another host.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

func pingInterval(d time.Duration) time.Duration {
	if d == 0 {
		return DefaultPingInterval
	}
	return max(d, 0)
}

func messageLimit(n int) int {
	if n <= 0 {
		return 32 << 20
	}
	return n
}

func sessionOptions(limit int, opts []capnweb.Option) []capnweb.Option {
	if limit <= 0 {
		return opts
	}
	return append([]capnweb.Option{capnweb.WithLimits(capnweb.Limits{MaxMessageBytes: limit})}, opts...)
}
