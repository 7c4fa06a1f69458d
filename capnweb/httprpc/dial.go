package httprpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

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
func Dial(ctx context.Context, address string, opts *DialOptions) (*capnweb.Session, error) {
	if opts == nil {
		opts = &DialOptions{}
	}
	timeout := opts.HandshakeTimeout
	if timeout <= 0 {
		timeout = DefaultHandshakeTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("httprpc: %w", err)
	}
	conn, err := connect(ctx, u, opts)
	if err != nil {
		return nil, fmt.Errorf("httprpc: connect to %s: %w", u.Redacted(), err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	r, err := upgrade(conn, u, opts.Header)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = conn.Close()
		var refused *HandshakeError
		if errors.As(err, &refused) {
			return nil, err
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("httprpc: connect to %s: %w", u.Redacted(), err)
	}
	t := newSocket(conn, r, true, messageLimit(opts.MaxMessageBytes), pingInterval(opts.PingInterval))
	return capnweb.NewSession(t, opts.Main, sessionOptions(opts.MaxMessageBytes, opts.Session)...), nil
}

// connect opens the connection beneath.
func connect(ctx context.Context, u *url.URL, opts *DialOptions) (net.Conn, error) {
	secure := false
	switch u.Scheme {
	case "ws", "http":
	case "wss", "https":
		secure = true
	default:
		return nil, fmt.Errorf("the URL's scheme must be ws, wss, http or https, not %q", u.Scheme)
	}
	port := u.Port()
	if port == "" {
		port = "80"
		if secure {
			port = "443"
		}
	}
	dial := opts.DialContext
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	conn, err := dial(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil || !secure {
		return conn, err
	}
	cfg := opts.TLS.Clone()
	if cfg == nil {
		cfg = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if cfg.ServerName == "" {
		cfg.ServerName = u.Hostname()
	}
	tc := tls.Client(conn, cfg)
	if err := tc.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return tc, nil
}

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
