package opencode

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/capnweb/httprpc"
	"github.com/tongs-dev/tongs/sandbox"
)

// Sandboxes gives the sandboxes of sessions.
type Sandboxes interface {
	// Agent returns the restricted stub of the sandbox that belongs to a root
	// session, starting it if need be. The stub becomes the caller's. It is
	// called by several goroutines at once.
	Agent(ctx context.Context, rootSessionID string) (*capnweb.Stub, error)
}

// BridgeConfig says how to reach the plugin. All but Logger are needed.
type BridgeConfig struct {
	// Dial connects to the plugin's port.
	Dial func(ctx context.Context) (net.Conn, error)
	// Token is what the plugin asks for.
	Token string
	// Root returns the root of a session; see [Host.RootSession].
	Root func(ctx context.Context, sessionID string) (string, error)
	// Sandboxes gives the sandboxes.
	Sandboxes Sandboxes
	// Surface makes the object that answers everything but tool, cancel and
	// project on what the plugin gets for a root session's sandbox. It is called when something is asked
	// of it, and must not be able to do what a session's agent may not: destroy
	// its sandbox, or reach another one. Default: all is asked of the stub that Sandboxes gives.
	Surface func(ctx context.Context, rootSessionID string) (*capnweb.Target, error)
	// Fetch carries the tool webfetch out. Default: the sandbox is asked, which has no such tool.
	Fetch FetchFunc
	// OnCall, if set, is told of each call that has ended. It must not block.
	OnCall func(CallEvent)
	// Step, if set, is told of each call of a tool before it goes to the sandbox, and the function that it returns
	// when the call has been answered. The call waits for it, so that it can look at the sandbox's files first.
	Step func(ctx context.Context, call StepCall) (done func())
	// PingInterval is how often the plugin is asked for a sign of life, and
	// PingTimeout how long it has to give one. Defaults 10 s and 20 s.
	PingInterval, PingTimeout time.Duration
	// Logger gets the comings and goings of connections. Default: none.
	Logger *slog.Logger
}

// Timing of a [Bridge].
const (
	redialFirst   = 50 * time.Millisecond
	redialLimit   = 2 * time.Second
	dialTimeout   = 10 * time.Second
	sandboxExpiry = 2 * time.Minute // for the start of a session's sandbox
)

// Bridge keeps a Cap'n Web connection to the plugin in OpenCode. The plugin gets
// an object with one method, sandbox(sessionID), which returns the stub of the
// sandbox that belongs to the session's root.
//
// A connection that breaks is made again, for ever, with pauses of 50 ms up to
// 2 s. One over which nothing comes back for 20 s counts as broken.
type Bridge struct {
	cfg    BridgeConfig
	logger *slog.Logger
	poke   chan struct{}

	questions questions
	fetches   fetches

	mu      sync.Mutex
	session *capnweb.Session
	changed chan struct{} // closed when session changes
	lastErr error
}

// NewBridge prepares a bridge; [Bridge.Run] connects it.
func NewBridge(cfg BridgeConfig) *Bridge {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	def(&cfg.PingInterval, 10*time.Second)
	def(&cfg.PingTimeout, 20*time.Second)
	return &Bridge{cfg: cfg, logger: cfg.Logger, poke: make(chan struct{}, 1),
		questions: questions{calls: map[callKey]*askedCall{}}, changed: make(chan struct{})}
}

// Run connects, and connects again, until ctx ends. It is to be called once at a time.
func (b *Bridge) Run(ctx context.Context) {
	pause := newBackoff(redialFirst, redialLimit)
	for ctx.Err() == nil {
		err := b.connect(ctx, pause)
		if ctx.Err() != nil {
			break
		}
		b.set(nil, err)
		timer := time.NewTimer(pause.step())
		select {
		case <-timer.C:
		case <-b.poke:
			pause.reset()
		case <-ctx.Done():
		}
		timer.Stop()
	}
	b.set(nil, errors.New("the bridge was closed"))
}

// connect makes one connection and returns when it is broken.
func (b *Bridge) connect(ctx context.Context, pause *backoff) error {
	dialCtx, cancel := context.WithTimeoutCause(ctx, dialTimeout, fmt.Errorf("no connection within %v", dialTimeout))
	defer cancel()
	main := capnweb.NewTarget(capnweb.Methods{"sandbox": b.sandbox}, capnweb.Concurrent())
	session, err := httprpc.Dial(dialCtx, "ws://127.0.0.1/", &httprpc.DialOptions{
		Main:   main,
		Header: http.Header{"Authorization": {"Bearer " + b.cfg.Token}},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return b.cfg.Dial(ctx)
		},
		PingInterval: -1, // keepAlive asks more: that the plugin itself answers.
	})
	if err != nil {
		if dialCtx.Err() != nil {
			err = context.Cause(dialCtx)
		}
		return err
	}
	defer session.Close(errors.New("the bridge was closed"))
	if err := b.ping(ctx, session); err != nil {
		return err
	}
	pause.reset()
	b.set(session, nil)
	b.logger.Info("the plugin is connected")
	err = b.keepAlive(ctx, session)
	if ctx.Err() == nil {
		b.logger.Warn("the connection to the plugin broke", "error", err)
	}
	return err
}

// keepAlive returns when the session has ended, or does not answer any more.
func (b *Bridge) keepAlive(ctx context.Context, session *capnweb.Session) error {
	ticker := time.NewTicker(b.cfg.PingInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-session.Done():
			return session.Err()
		case <-ticker.C:
			if err := b.ping(ctx, session); err != nil {
				return err
			}
		}
	}
}

// ping asks the peer for a sign of life. An error from the peer is one too: a
// plugin need not know hello().
func (b *Bridge) ping(ctx context.Context, session *capnweb.Session) error {
	ctx, cancel := context.WithTimeoutCause(ctx, b.cfg.PingTimeout, fmt.Errorf("no sign of life within %v", b.cfg.PingTimeout))
	defer cancel()
	_, err := capnweb.Call[any](ctx, session.Main(), "hello")
	if err != nil && (ctx.Err() != nil || errors.Is(err, capnweb.ErrDisconnected)) {
		return err
	}
	return nil
}

// sandbox is what the plugin may call.
func (b *Bridge) sandbox(ctx context.Context, sessionID string) (*capnweb.Target, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, sandboxExpiry, fmt.Errorf("it took longer than %v", sandboxExpiry))
	defer cancel()
	root, err := b.cfg.Root(ctx, sessionID)
	if err != nil {
		b.logger.Warn("a sandbox was asked for and refused", "session", sessionID, "error", err)
		return nil, err
	}
	stub, err := b.cfg.Sandboxes.Agent(ctx, root)
	if err != nil {
		b.logger.Error("no sandbox for a session", "session", sessionID, "root", root, "error", err)
		return nil, err
	}
	r := &relay{bridge: b, session: sessionID, root: root, stub: stub}
	return capnweb.NewDispatcher(r, capnweb.Concurrent(), capnweb.OnClose(r.close)), nil
}

// Poke ends the pause before the next attempt to connect.
func (b *Bridge) Poke() {
	select {
	case b.poke <- struct{}{}:
	default:
	}
}

// Connected tells whether the plugin is connected.
func (b *Bridge) Connected() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.session != nil
}

// Wait returns when the plugin is connected, or ctx ends.
func (b *Bridge) Wait(ctx context.Context) error {
	for {
		b.mu.Lock()
		session, changed, last := b.session, b.changed, b.lastErr
		b.mu.Unlock()
		if session != nil {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			cause := context.Cause(ctx)
			message := cause.Error()
			if last != nil {
				message += "; the last attempt: " + last.Error()
			}
			return &sandbox.Error{Code: CodeBridgeDown, Op: "connect to the plugin", Message: message,
				Hint: "look at OpenCode's log for the plugin's lines", Err: cause}
		}
	}
}

// Stats are the references that the present connection holds; zero without one.
func (b *Bridge) Stats() capnweb.Stats {
	b.mu.Lock()
	session := b.session
	b.mu.Unlock()
	if session == nil {
		return capnweb.Stats{}
	}
	return session.Stats()
}

func (b *Bridge) set(session *capnweb.Session, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.session, b.lastErr = session, err
	close(b.changed)
	b.changed = make(chan struct{})
}
