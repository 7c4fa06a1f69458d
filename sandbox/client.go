package sandbox

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
)

// Dialer opens a connection to a guest's socket. It is called for the session and
// again for each raw connection.
type Dialer func(ctx context.Context) (net.Conn, error)

// Client is a connection to one sandbox: one RPC session, and a raw connection
// for each bulk transfer. It is safe for use by many goroutines.
//
// It does not reconnect: when the session breaks, every pending and later call
// fails with CodeConnectionLost, and a new Client has to be made. What runs in the
// sandbox goes on, and is there by its id if Info().Incarnation is the same.
//
// [Connect] makes one over a guest's socket, remote.Dial over a public endpoint.
type Client struct {
	link Link
	main *capnweb.Stub
}

// A Link is what a Client talks through: a guest's socket, or something that leads
// to one. Its methods may be called by many goroutines.
type Link interface {
	// Main is the guest's main object, or one that passes its calls on. The
	// link owns it.
	Main() *capnweb.Stub
	// OpenRaw opens the connection that a token stands for. Errors are
	// *Error with the operation op, or a context's own.
	OpenRaw(ctx context.Context, op, token string) (net.Conn, error)
	// Incarnation names the life of the sandbox that the link leads to.
	Incarnation() string
	// Done is closed when the link is broken or closed; Err then says why.
	Done() <-chan struct{}
	Err() error
	Close() error
}

// NewClient makes a client over a link, which it owns.
func NewClient(link Link) *Client { return &Client{link: link, main: link.Main()} }

// socketLink leads to a guest's socket.
type socketLink struct {
	dial        Dialer
	session     *capnweb.Session
	main        *capnweb.Stub
	incarnation string
}

var (
	_ Processes = (*Client)(nil)
	_ Files     = (*Client)(nil)
	_ Ports     = (*Client)(nil)
	_ Tools     = (*Client)(nil)
)

// greetingTimeout bounds the exchange of first lines when the context has no
// nearer deadline.
const greetingTimeout = 10 * time.Second

// Connect opens a session with the guest that dial reaches. Errors: what dial
// returned, as the cause of CodeConnectionLost; CodeProtocolMismatch when the
// guest is of another version or no guest at all; CodeTooManyConnections.
func Connect(ctx context.Context, dial func(context.Context) (net.Conn, error)) (*Client, error) {
	l := &socketLink{dial: dial}
	conn, inc, err := l.open(ctx, "connect", "")
	if err != nil {
		return nil, err
	}
	l.incarnation = inc
	l.session = capnweb.NewSession(capnweb.NewStreamTransport(conn, MaxMessageBytes), nil, capnweb.WithLimits(SessionLimits))
	l.main = l.session.Main()
	return NewClient(l), nil
}

// open makes a connection and exchanges the first lines.
func (l *socketLink) open(ctx context.Context, op, token string) (net.Conn, string, error) {
	conn, err := l.dial(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, "", ctx.Err()
		}
		var e *Error
		if errors.As(err, &e) {
			return nil, "", err
		}
		return nil, "", &Error{Code: CodeConnectionLost, Op: op, Message: "the sandbox's guest can't be reached: " + err.Error(), Hint: "is the sandbox running?", Err: err}
	}
	_ = conn.SetDeadline(time.Now().Add(greetingTimeout))
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	w, err := greet(conn, token)
	if !stop() && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		var e *Error
		switch {
		case ctx.Err() != nil:
			return nil, "", ctx.Err()
		case errors.As(err, &e):
			e.Op = op
			return nil, "", e
		}
		return nil, "", &Error{Code: CodeConnectionLost, Op: op, Message: "the sandbox's guest did not answer: " + err.Error(), Err: err}
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		_ = conn.Close()
		return nil, "", asError(op, err)
	}
	return conn, w.Incarnation, nil
}

func greet(conn net.Conn, token string) (Welcome, error) {
	_, werr := io.WriteString(conn, Greeting{Protocol: Protocol, Token: token}.String())
	// A guest that refuses at once may have closed before it was greeted; its
	// answer is there all the same.
	line, err := ReadGreetingLine(conn)
	if err != nil {
		return Welcome{}, cmp.Or(werr, err)
	}
	return ParseWelcome(line)
}

// OpenRaw implements Link.
func (l *socketLink) OpenRaw(ctx context.Context, op, token string) (net.Conn, error) {
	conn, inc, err := l.open(ctx, op, token)
	if err != nil {
		return nil, err
	}
	if inc != l.incarnation {
		_ = conn.Close()
		return nil, Errf(CodeConnectionLost, op, "the sandbox was started anew meanwhile", "connect again")
	}
	return conn, nil
}

func (l *socketLink) Main() *capnweb.Stub   { return l.main }
func (l *socketLink) Incarnation() string   { return l.incarnation }
func (l *socketLink) Done() <-chan struct{} { return l.session.Done() }
func (l *socketLink) Err() error            { return l.session.Err() }

func (l *socketLink) Close() error {
	_ = l.main.Close()
	return l.session.Close(nil)
}

// raw opens the connection that a token stands for.
func (c *Client) raw(ctx context.Context, op, token string) (net.Conn, error) {
	return c.link.OpenRaw(ctx, op, token)
}

// Link is what the client talks through, for those who pass its calls on. It
// stays the client's.
func (c *Client) Link() Link { return c.link }

// call makes one call and decodes its error.
func call[T any](ctx context.Context, c *Client, op, method string, args ...any) (T, error) {
	v, err := capnweb.Call[T](ctx, c.main, method, args...)
	if err != nil {
		var zero T
		return zero, FromWire(op, err)
	}
	return v, nil
}

// none is the result of a call that has none.
type none = capnweb.Value

// Close ends the session. Processes, tool runs and listeners stay.
func (c *Client) Close() error { return c.link.Close() }

// Done is closed when the session is over.
func (c *Client) Done() <-chan struct{} { return c.link.Done() }

// Err is nil while the session lives, then a CodeConnectionLost with its cause.
func (c *Client) Err() error {
	if err := c.link.Err(); err != nil {
		return FromWire("connect", err)
	}
	return nil
}

// Incarnation names the life of the sandbox that this client talks to: it changes
// when the guest is started anew, and with it all processes and runs are gone.
func (c *Client) Incarnation() string { return c.link.Incarnation() }

// Info asks the guest about itself. It is also a cheap sign of life.
func (c *Client) Info(ctx context.Context) (*GuestInfo, error) {
	return call[*GuestInfo](ctx, c, "info", "info")
}

// Agent is the restricted object that may be handed to OpenCode: tool and cancel,
// and nothing else. Close the stub when it is no longer needed.
func (c *Client) Agent() *capnweb.Stub {
	p := c.main.Get("agent")
	defer p.Close()
	return p.Stub()
}

// What the host tells the guest of a sandbox by empty files beside the guest's socket, while that is closed.
const (
	ResumedFile  = "resumed"  // there was no checkpoint, or the sandbox goes on after it
	RestoredFile = "restored" // this is what was restored from a checkpoint
)

// MaxSuspend is the longest that Suspend takes.
const MaxSuspend = 10 * time.Minute

// Suspend has the guest close its socket and all connections, this one included, since a checkpoint can't hold
// them: they end with CONNECTION_LOST as when the host restarts, and what they have begun goes on. Then the guest
// removes its socket. It opens its socket again when it sees ResumedFile or RestoredFile, and by itself when it
// has seen neither within that time (at most MaxSuspend). Errors: NOT_SUPPORTED where the guest can't open its
// socket by itself, SANDBOX_BUSY when it is suspended already.
func (c *Client) Suspend(ctx context.Context, within time.Duration) error {
	_, err := call[none](ctx, c, "prepare checkpoint", "suspend", within.Milliseconds())
	if CodeOf(err) == CodeConnectionLost {
		return nil // it was faster than its answer
	}
	return err
}

// Shutdown ends the sandbox: all commands get SIGTERM, two seconds later SIGKILL,
// then the guest exits. It returns when the guest has gone, or with ctx.
func (c *Client) Shutdown(ctx context.Context) error {
	_, err := call[none](ctx, c, "shutdown", "shutdown")
	if err != nil && CodeOf(err) != CodeConnectionLost {
		return err
	}
	select {
	case <-c.Done():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
