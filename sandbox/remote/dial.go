package remote

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"iter"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/capnweb/httprpc"
	"github.com/tongs-dev/tongs/sandbox"
)

// CodeUnauthorized: the token is missing, wrong, revoked or expired.
const CodeUnauthorized = sandbox.CodeUnauthorized

// DialOptions say how to reach a sandbox.
type DialOptions struct {
	// Token is a bearer token: the host's own (from the file api-token in its home), or one
	// that IssueToken gave.
	Token string
	// Sandbox is a name, an id, the id of an OpenCode session, or how one of these
	// begins if nothing else begins so. A token of one sandbox needs none. [Connect] ignores it.
	Sandbox string
	// TLS is the configuration for https and wss URLs.
	TLS *tls.Config
	// DialContext opens the connection beneath; nil is a TCP connection to the URL's host.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)
	// Timeout bounds connecting: 30 s.
	Timeout time.Duration
}

// Dial connects to one sandbox through the endpoint at address, such as
// http://127.0.0.1:8788, and starts it if it is stopped. Closing the client closes the
// connection. Errors: CodeConnectionLost when nothing answers there, CodeUnauthorized,
// CodeSandboxNotFound, CodeAmbiguousName.
func Dial(ctx context.Context, address string, opts DialOptions) (*sandbox.Client, error) {
	host, err := Connect(ctx, address, opts)
	if err != nil {
		return nil, err
	}
	client, err := host.open(ctx, opts.Sandbox, true)
	if err != nil {
		_ = host.Close()
	}
	return client, err
}

// Host is a connection to an endpoint. It is safe for use by many goroutines. It does
// not reconnect.
type Host struct {
	session *capnweb.Session
	main    *capnweb.Stub
}

// Connect connects to the endpoint at address. Errors as with Dial.
func Connect(ctx context.Context, address string, opts DialOptions) (*Host, error) {
	const op = "connect"
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return nil, &sandbox.Error{Code: sandbox.CodeInvalidArgument, Op: op, Message: "the endpoint " + quote(address) + " is not a URL", Hint: "write http://host:port", Err: err}
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = Path
	}
	header := http.Header{}
	if opts.Token != "" {
		header.Set("Authorization", "Bearer "+opts.Token)
	}
	session, err := httprpc.Dial(ctx, u.String(), &httprpc.DialOptions{
		Header: header, TLS: opts.TLS, DialContext: opts.DialContext, HandshakeTimeout: opts.Timeout,
		Session: []capnweb.Option{capnweb.WithLimits(capnweb.Limits{MaxPipeBytes: 64 << 20})},
	})
	if err != nil {
		return nil, connectError(ctx, op, u, err)
	}
	return &Host{session: session, main: session.Main()}, nil
}

func quote(s string) string { return "\"" + s[:min(len(s), 100)] + "\"" }

// connectError says what went wrong, and what to do.
func connectError(ctx context.Context, op string, u *url.URL, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	where := u.Scheme + "://" + u.Host
	var refused *httprpc.HandshakeError
	if errors.As(err, &refused) {
		var body struct{ Code, Message, Hint string }
		if json.Unmarshal([]byte(refused.Body), &body) == nil && body.Message != "" {
			return &sandbox.Error{Code: sandbox.Code(body.Code), Op: op, Message: body.Message, Hint: body.Hint, Err: err}
		}
		return &sandbox.Error{Code: sandbox.CodeProtocolMismatch, Op: op, Message: "what answers at " + where + " is not a Tongs endpoint: " + http.StatusText(refused.StatusCode),
			Hint: "its default address is http://127.0.0.1:8788; 8787 is the front for OpenCode's clients", Err: err}
	}
	e := &sandbox.Error{Code: sandbox.CodeConnectionLost, Op: op, Message: "nothing answers at " + where + ": " + err.Error(), Err: err}
	if errors.Is(err, syscall.ECONNREFUSED) {
		e.Message = "nothing listens at " + where
		e.Hint = "is `tongs up` running there?"
	}
	return e
}

// call makes one call of the endpoint's main object.
func call[T any](ctx context.Context, h *Host, op, method string, args ...any) (T, error) {
	v, err := capnweb.Call[T](ctx, h.main, method, args...)
	return v, sandbox.FromWire(op, err)
}

// Version says what answers, and is a cheap sign of life.
func (h *Host) Version(ctx context.Context) (*Version, error) {
	return call[*Version](ctx, h, "version", "version")
}

// List gives one page of the sandboxes.
func (h *Host) List(ctx context.Context, opts ListOptions) (*Page, error) {
	return call[*Page](ctx, h, "list sandboxes", "sandboxes", opts)
}

// All yields every sandbox, page by page.
func (h *Host) All(ctx context.Context, opts ListOptions) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		for {
			page, err := h.List(ctx, opts)
			if err != nil {
				yield(Info{}, err)
				return
			}
			for _, info := range page.Sandboxes {
				if !yield(info, nil) {
					return
				}
			}
			if page.Next == "" || page.Next == opts.Cursor {
				return
			}
			opts.Cursor = page.Next
		}
	}
}

// Create makes a sandbox and starts it.
func (h *Host) Create(ctx context.Context, opts CreateOptions) (*Info, error) {
	const op = "create sandbox"
	box := h.main.Call("create", opts)
	defer box.Close()
	info, err := capnweb.Call[*Info](ctx, box, "describe") // in the same round trip
	return info, sandbox.FromWire(op, err)
}

// Inspect describes one sandbox, and asks its guest if it runs. It does not start it.
func (h *Host) Inspect(ctx context.Context, ref string) (*Info, error) {
	return call[*Info](ctx, h, "inspect sandbox", "inspect", ref)
}

// Destroy ends a sandbox and removes its files, and says which it was.
func (h *Host) Destroy(ctx context.Context, ref string) (*Info, error) {
	return call[*Info](ctx, h, "destroy sandbox", "destroy", ref)
}

// Checkpoint writes what runs in a sandbox to the host's disk and ends it, and says which it was. The next use of
// the sandbox has it go on. Errors: NOT_SUPPORTED unless gVisor runs it; SANDBOX_NOT_RUNNING; NO_SPACE;
// CHECKPOINT_FAILED, after which it goes on.
func (h *Host) Checkpoint(ctx context.Context, ref string) (*Info, error) {
	return call[*Info](ctx, h, "checkpoint sandbox", "checkpoint", ref)
}

// Restore has a sandbox go on from its checkpoint, which any use of it does, too; with fresh it starts from its
// files instead, and the checkpoint is removed. Errors: CHECKPOINT_NOT_FOUND; RESTORE_FAILED.
func (h *Host) Restore(ctx context.Context, ref string, fresh bool) (*Info, error) {
	return call[*Info](ctx, h, "restore sandbox", "restore", ref, fresh)
}

// IssueToken makes a token that is good for one sandbox.
func (h *Host) IssueToken(ctx context.Context, opts TokenOptions) (*TokenInfo, error) {
	return call[*TokenInfo](ctx, h, "issue token", "issueToken", opts)
}

// Tokens lists the tokens that IssueToken has given out and that are still good.
func (h *Host) Tokens(ctx context.Context) ([]TokenInfo, error) {
	return call[[]TokenInfo](ctx, h, "list tokens", "tokens")
}

// RevokeToken ends a token and the connections that were opened with it. It reports
// whether there was one of that id.
func (h *Host) RevokeToken(ctx context.Context, id string) (bool, error) {
	return call[bool](ctx, h, "revoke token", "revokeToken", id)
}

// Object is a stub of one sandbox's whole object, as JavaScript sees it. The caller closes it.
func (h *Host) Object(ref string) *capnweb.Stub {
	p := h.main.Call("get", ref)
	defer p.Close()
	return p.Stub()
}

// Sandbox gives a client of one sandbox over this connection, and starts the sandbox if it
// is stopped. Closing the client leaves the connection open.
func (h *Host) Sandbox(ctx context.Context, ref string) (*sandbox.Client, error) {
	return h.open(ctx, ref, false)
}

func (h *Host) open(ctx context.Context, ref string, owns bool) (*sandbox.Client, error) {
	const op = "connect"
	box := h.main.Call("get", ref)
	defer box.Close()
	p := box.Get("native")
	native := p.Stub()
	p.Close()
	at, err := capnweb.Call[*Attachment](ctx, native, "attach")
	if err != nil {
		_ = native.Close()
		return nil, sandbox.FromWire(op, err)
	}
	l := &link{host: h, owns: owns, native: native, incarnation: at.Incarnation, done: make(chan struct{})}
	var end context.Context
	end, l.stop = context.WithCancel(context.Background())
	go l.watch(end)
	return sandbox.NewClient(l), nil
}

// Done is closed when the connection is over.
func (h *Host) Done() <-chan struct{} { return h.session.Done() }

// Close ends the connection.
func (h *Host) Close() error {
	_ = h.main.Close()
	return h.session.Close(nil)
}

// link leads to one sandbox through an endpoint.
type link struct {
	host        *Host
	owns        bool
	native      *capnweb.Stub
	incarnation string
	stop        context.CancelFunc

	once sync.Once
	done chan struct{}
	err  error
}

// watch ends the link when the endpoint has lost its sandbox, or is lost itself.
func (l *link) watch(ctx context.Context) {
	_, err := capnweb.Call[capnweb.Value](ctx, l.native, "ended")
	if ctx.Err() == nil {
		l.end(err)
	}
}

func (l *link) end(err error) {
	l.once.Do(func() {
		if err == nil {
			err = sandbox.Errf(sandbox.CodeConnectionLost, "connect", "the connection to the sandbox ended", "connect again; what was running in the sandbox still is")
		}
		l.err = err
		close(l.done)
	})
}

func (l *link) Main() *capnweb.Stub   { return l.native }
func (l *link) Incarnation() string   { return l.incarnation }
func (l *link) Done() <-chan struct{} { return l.done }

func (l *link) Err() error {
	select {
	case <-l.done:
		return l.err
	default:
		return nil
	}
}

func (l *link) Close() error {
	l.stop()
	l.end(sandbox.Errf(sandbox.CodeConnectionLost, "connect", "the client was closed", ""))
	_ = l.native.Close()
	if l.owns {
		return l.host.Close()
	}
	return nil
}

// OpenRaw implements sandbox.Link.
func (l *link) OpenRaw(ctx context.Context, op, token string) (net.Conn, error) {
	s, err := capnweb.Call[RawStreams](ctx, l.native, "raw", token)
	if err != nil {
		return nil, sandbox.FromWire(op, err)
	}
	if s.Readable == nil || s.Writable == nil {
		return nil, sandbox.Errf(sandbox.CodeProtocolMismatch, op, "the endpoint gave no streams", "is it of another version?")
	}
	return newStreamConn(s, strings.TrimSpace(op)), nil
}
