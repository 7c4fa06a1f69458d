package opencode

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path"
	"strconv"
	"sync"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/plugin"
	"github.com/tongs-dev/tongs/sandbox"
)

// HostConfig says how to run OpenCode. Machine, Content and Sandboxes are needed.
type HostConfig struct {
	// Machine returns the connection to the agent host, made if need be. It is
	// called again whenever the one it gave is broken.
	Machine func(ctx context.Context) (Machine, error)

	// Content is OpenCode's configuration, as JSON, with everything enforced. At
	// most 120 KiB.
	Content []byte

	// Sandboxes gives the sandboxes of sessions to the bridge.
	Sandboxes Sandboxes
	// Surface is as in BridgeConfig.
	Surface func(ctx context.Context, rootSessionID string) (*capnweb.Target, error)
	// Fetch is as in BridgeConfig.
	Fetch FetchFunc

	// Models are checked for tools that are not ours, in addition to those that
	// Content names and to one of each family that OpenCode treats differently.
	Models []Model

	// OnStart is called, and awaited, once for each OpenCode that was really
	// started, when it is ready and before any caller is let through. It is not
	// called when a running one was taken over. An error ends that start.
	OnStart func(ctx context.Context, server *Server) error

	// OnCall, if set, is told of each call of the plugin to a sandbox that has
	// ended. It must not block.
	OnCall func(CallEvent)

	// Step, if set, is told of each call of a tool before it begins, which waits for it, and the function
	// that it returns when the call has ended.
	Step func(ctx context.Context, call StepCall) (done func())

	// Binary is OpenCode's path in the agent host. Default /opt/tongs/bin/opencode.
	Binary string
	// Home is the home directory of the agent host's user. Default /home/user.
	Home string
	// Project is the directory in which OpenCode works, and which the model is
	// told. Default /home/user/project.
	Project string
	// Env is set for OpenCode in addition to what a Host sets itself.
	Env map[string]string
	// Port and BridgePort are OpenCode's and the plugin's loopback ports in the
	// agent host. Defaults 4096 and 3001.
	Port, BridgePort int

	// StartTimeout bounds one start, from launch to ready. Default 90 s.
	StartTimeout time.Duration
	// StopTimeout is how long OpenCode may take to end by itself. Default 10 s.
	StopTimeout time.Duration
	// RestartDelay is the pause before the first restart after a crash; it
	// doubles up to MaxRestartDelay and begins anew after StableAfter of
	// running. Defaults 250 ms, 30 s, 60 s.
	RestartDelay, MaxRestartDelay, StableAfter time.Duration

	// ProbeInterval is how often a ready OpenCode is asked whether it answers,
	// and ProbeTimeout how long it has; after four misses in a row it is killed
	// and started again. Defaults 15 s and 10 s.
	ProbeInterval, ProbeTimeout time.Duration

	// Logger gets what happens, and OpenCode's own log with "from" set to
	// "opencode". Default: none.
	Logger *slog.Logger
}

// Model names a model as OpenCode does.
type Model struct {
	Provider string // e.g. "openai"
	ID       string // e.g. "gpt-5"
}

// Server is an OpenCode that is ready.
type Server struct {
	// URL is the server's base URL as seen inside the agent host; it is also
	// what requests through [Host.Client] name.
	URL  string
	Port int
	// Process is the server's process.
	Process *Process
	// Fresh is false if a running one was taken over.
	Fresh bool
}

// Process is a running `opencode serve`.
type Process struct {
	ID      string // its id among the agent host's processes
	PID     int    // in the agent host
	Started time.Time
	// Launch is the hash of all that it was launched with. One with another
	// hash is not taken over.
	Launch string

	host *Host
}

// Log is what OpenCode has written, over all its starts.
func (p *Process) Log() *Log { return p.host.log }

// Wait returns how the process ended, when it has.
func (p *Process) Wait(ctx context.Context) (sandbox.Exit, error) {
	return p.host.waitProcess(ctx, p.PID)
}

// maxContentBytes bounds the configuration: Linux takes at most 128 KiB for one
// variable of the environment.
const maxContentBytes = 120 << 10

// processID names OpenCode among the processes of the agent host.
const processID = "opencode"

// Host runs OpenCode in its agent host and keeps it running.
type Host struct {
	cfg    HostConfig
	logger *slog.Logger
	log    *Log
	bridge *Bridge
	raw    *http.Transport // to OpenCode's port, whether it is ready or not
	ready  *http.Transport // to OpenCode's port, when it is ready
	fresh  *http.Transport // the same, with a connection of its own for each request
	roots  *rootCache

	token string // that the plugin asks of the bridge

	mu       sync.Mutex
	changed  chan struct{} // closed when what follows changes
	state    State
	server   *Server // in StateReady
	err      error   // the newest failure
	failures int     // number of failed starts so far
	failure  error   // of the newest of them
	restarts int
	since    time.Time
	run      *run // not nil while there is a supervisor
}

// run is one supervisor: from a Start to its Stop, or its failure.
type run struct {
	cancel context.CancelFunc
	leave  bool // Detach: OpenCode is left running
	done   chan struct{}
}

// NewHost prepares a Host; nothing is started. It fails when the configuration
// lacks something or makes no sense.
func NewHost(cfg HostConfig) (*Host, error) {
	const op = "run OpenCode"
	if cfg.Machine == nil || len(cfg.Content) == 0 || cfg.Sandboxes == nil {
		return nil, sandbox.Errf(sandbox.CodeInvalidArgument, op, "Machine, Content and Sandboxes have to be set", "")
	}
	if len(cfg.Content) > maxContentBytes {
		return nil, sandbox.Errf(sandbox.CodeInvalidArgument, op, fmt.Sprintf("OpenCode's configuration is %d bytes long and may have %d, since it is passed in the environment", len(cfg.Content), maxContentBytes),
			"take out what is not used, such as models")
	}
	if _, err := plugin.Tools(); err != nil {
		return nil, err
	}
	def(&cfg.Binary, "/opt/tongs/bin/opencode")
	def(&cfg.Home, "/home/user")
	def(&cfg.Project, "/home/user/project")
	def(&cfg.Port, 4096)
	def(&cfg.BridgePort, 3001)
	def(&cfg.StartTimeout, 90*time.Second)
	def(&cfg.StopTimeout, 10*time.Second)
	def(&cfg.RestartDelay, 250*time.Millisecond)
	def(&cfg.MaxRestartDelay, 30*time.Second)
	def(&cfg.StableAfter, time.Minute)
	def(&cfg.ProbeInterval, 15*time.Second)
	def(&cfg.ProbeTimeout, 10*time.Second)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	for _, p := range []string{cfg.Binary, cfg.Home, cfg.Project} {
		if !path.IsAbs(p) {
			return nil, sandbox.Errf(sandbox.CodeInvalidArgument, op, fmt.Sprintf("%q is not an absolute path", p), "")
		}
	}
	token := make([]byte, 32)
	rand.Read(token)
	h := &Host{
		cfg:     cfg,
		logger:  cfg.Logger,
		log:     newLog(),
		token:   hex.EncodeToString(token),
		changed: make(chan struct{}),
		since:   time.Now(),
		state:   StateStopped,
		roots:   newRootCache(),
	}
	h.raw = newTransport(func(ctx context.Context) (net.Conn, error) { return h.dial(ctx, h.cfg.Port) })
	h.ready = newTransport(h.dialReady)
	h.fresh = newTransport(h.dialReady)
	h.fresh.DisableKeepAlives = true
	h.bridge = NewBridge(BridgeConfig{
		Dial:      func(ctx context.Context) (net.Conn, error) { return h.dial(ctx, h.cfg.BridgePort) },
		Token:     h.token,
		Root:      h.RootSession,
		Sandboxes: cfg.Sandboxes, Surface: cfg.Surface, Fetch: cfg.Fetch,
		OnCall: cfg.OnCall, Step: cfg.Step,
		Logger: h.logger.With("from", "bridge"),
	})
	return h, nil
}

func newTransport(dial func(context.Context) (net.Conn, error)) *http.Transport {
	return &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		DisableCompression:  true,
		MaxIdleConns:        64,
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     30 * time.Second,
	}
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// URL is the base URL of requests through [Host.Client].
func (h *Host) URL() string {
	return "http://127.0.0.1:" + strconv.Itoa(h.cfg.Port)
}

// Log is what OpenCode has written, over all its starts.
func (h *Host) Log() *Log { return h.log }

// Bridge is the connection to the plugin.
func (h *Host) Bridge() *Bridge { return h.bridge }

// Start runs OpenCode, unless it runs already, and returns when it is ready. Any
// number of callers share one start. When ctx ends only the wait ends.
//
// A first start that fails is not tried again by itself; another Start does. An
// OpenCode that has been ready once is kept running until Stop or Detach.
func (h *Host) Start(ctx context.Context) (*Server, error) {
	h.mu.Lock()
	if h.run == nil {
		runCtx, cancel := context.WithCancel(context.Background())
		r := &run{cancel: cancel, done: make(chan struct{})}
		h.run = r
		h.set(StateStarting, nil, nil)
		go h.supervise(runCtx, r)
	}
	h.mu.Unlock()
	return h.Ready(ctx)
}

// Ready waits until OpenCode is ready. It fails when a start fails during the
// wait, and at once when OpenCode is stopped.
func (h *Host) Ready(ctx context.Context) (*Server, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	failures := h.failures
	for {
		switch {
		case h.state == StateReady:
			return h.server, nil
		case h.failures > failures:
			return nil, h.failure
		case h.run == nil:
			if h.err != nil {
				return nil, h.err
			}
			return nil, sandbox.Errf(CodeNotRunning, "wait for OpenCode", "OpenCode is not running", "start it first")
		}
		changed := h.changed
		h.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			h.mu.Lock()
			err := context.Cause(ctx)
			if h.err != nil {
				err = fmt.Errorf("%w; the start before failed: %w", err, h.err)
			}
			return nil, &sandbox.Error{Code: CodeNotRunning, Op: "wait for OpenCode", Message: "OpenCode did not become ready in time: " + err.Error(),
				Hint: "look at OpenCode's log for what it is doing", Err: err}
		}
		h.mu.Lock()
	}
}

// Stop ends OpenCode: SIGTERM, then SIGKILL after StopTimeout. It returns when
// the process is gone and nothing of the Host runs any more.
func (h *Host) Stop(ctx context.Context) error { return h.end(ctx, false) }

// Detach ends the Host and leaves OpenCode running, for another Host to take over.
func (h *Host) Detach(ctx context.Context) error { return h.end(ctx, true) }

func (h *Host) end(ctx context.Context, leave bool) error {
	h.mu.Lock()
	r := h.run
	if r == nil {
		h.mu.Unlock()
		return nil
	}
	r.leave = leave
	h.mu.Unlock()
	r.cancel()
	select {
	case <-r.done:
	case <-ctx.Done():
		return fmt.Errorf("stop OpenCode: %w", context.Cause(ctx))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if errors.Is(h.err, errStopped) {
		return nil
	}
	return h.err
}

// State is what a [Host] is doing.
type State string

// The states of a Host.
const (
	StateStopped    State = "stopped"    // never started, or stopped
	StateStarting   State = "starting"   // a first start is under way
	StateReady      State = "ready"      // requests are let through
	StateRestarting State = "restarting" // it crashed; requests wait
	StateFailed     State = "failed"     // the first start failed
)

// Health describes a [Host].
type Health struct {
	State State     `json:"state"`
	Since time.Time `json:"since"` // of that state
	PID   int       `json:"pid,omitempty"`
	// Restarts counts the starts after crashes.
	Restarts int `json:"restarts"`
	// Bridge tells whether the plugin is connected.
	Bridge bool `json:"bridge"`
	// Error is the newest failure, "" if there was none since it was last ready.
	Error string `json:"error,omitempty"`
}

// Health tells how OpenCode is, without asking it.
func (h *Host) Health() Health {
	h.mu.Lock()
	defer h.mu.Unlock()
	health := Health{State: h.state, Since: h.since, Restarts: h.restarts, Bridge: h.bridge.Connected()}
	if h.server != nil {
		health.PID = h.server.Process.PID
	}
	if h.err != nil && !errors.Is(h.err, errStopped) {
		health.Error = h.err.Error()
	}
	return health
}

// Process is the running OpenCode; nil if it is not ready.
func (h *Host) Process() *Process {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.server == nil {
		return nil
	}
	return h.server.Process
}

// set changes what callers see. h.mu is held.
func (h *Host) set(state State, server *Server, err error) {
	if h.state != state {
		h.since = time.Now()
	}
	h.state, h.server, h.err = state, server, err
	close(h.changed)
	h.changed = make(chan struct{})
}

// dial connects to a loopback port of the agent host.
func (h *Host) dial(ctx context.Context, port int) (net.Conn, error) {
	m, err := h.cfg.Machine(ctx)
	if err != nil {
		return nil, err
	}
	return m.Dial(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
}

// redialTimeout bounds how long a request waits for a connection to an OpenCode that has ended.
const redialTimeout = 2 * time.Minute

// dialReady connects to OpenCode when it is ready. It may have ended a moment ago without anybody
// having noticed yet; nothing has been sent then, so the one that follows is waited for.
func (h *Host) dialReady(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, redialTimeout, fmt.Errorf("no connection within %v", redialTimeout))
	defer cancel()
	pause := newBackoff(20*time.Millisecond, 500*time.Millisecond)
	for {
		if _, err := h.Ready(ctx); err != nil {
			return nil, err
		}
		conn, err := h.dial(ctx, h.cfg.Port)
		switch sandbox.CodeOf(err) {
		case sandbox.CodeServiceNotResponding, sandbox.CodeConnectionLost:
			if pause.wait(ctx) {
				continue
			}
		}
		return conn, err
	}
}
