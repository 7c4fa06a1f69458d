package undo

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tongs-dev/tongs/internal/gateway"
	"github.com/tongs-dev/tongs/internal/snapshot"
	"github.com/tongs-dev/tongs/sandbox"
)

// Bounds of what is waited for and remembered.
const (
	stateTimeout = 3 * time.Minute // one state of a project, and the wait for others' work on it
	maxWorlds    = 4096            // root sessions that are remembered
	maxMarked    = 512             // steps of one root session whose beginning is known to be kept
	maxPreparing = 256             // states that are kept, or wait to be, before a tool asks for them
)

// Config says whose files are meant. All but Logger are needed.
type Config struct {
	// Root returns the root of a session, or an error when there is no such session.
	Root func(ctx context.Context, sessionID string) (string, error)
	// Sandbox returns the sandbox of a root session, and makes or starts it if need be.
	Sandbox func(ctx context.Context, root string) (*sandbox.Client, error)
	// Exists says whether a root session has a sandbox.
	Exists func(root string) bool
	// Fork gives a new root session, which begin makes, a sandbox that starts with the files of another one's.
	Fork func(ctx context.Context, from string, begin func(context.Context) (string, error)) (root string, err error)
	// OpenCode sends requests to OpenCode's API at URL, waiting until it is ready.
	OpenCode http.RoundTripper
	URL      string
	// Project is the project's directory and Home the user's, in OpenCode and in every sandbox.
	Project, Home string
	// Logger gets what was undone, and what could not be kept. Default: none.
	Logger *slog.Logger
}

// Manager keeps the states of sessions' files and puts sessions back into them. It is safe for use by many
// goroutines.
type Manager struct {
	cfg  Config
	log  *slog.Logger
	send atomic.Pointer[func(gateway.Event)]

	ctx   context.Context // ends with Close
	close context.CancelFunc
	wg    sync.WaitGroup

	mu        sync.Mutex
	worlds    map[string]*world
	preparing int // states that are kept in the background
}

// world is what is known of the files of one root session.
type world struct {
	turn chan struct{} // capacity 1: held by whoever works on the files' states
	uses int           // Manager.mu: who holds it or waits for it

	mu      sync.Mutex
	marked  map[string]bool // steps whose beginning is kept
	running map[string]int  // tools of a step
	ended   map[string]bool // steps whose end is to be kept
	failing bool            // the last state could not be kept, and that was said
}

// New makes a manager. Close ends it.
func New(cfg Config) *Manager {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	m := &Manager{cfg: cfg, log: cfg.Logger, worlds: map[string]*world{}}
	m.ctx, m.close = context.WithCancel(context.Background())
	return m
}

// Close ends what goes on in the background, and waits for it.
func (m *Manager) Close() {
	m.mu.Lock()
	m.close()
	m.mu.Unlock()
	m.wg.Wait()
}

// Events takes the function that sends events to clients.
func (m *Manager) Events(send func(gateway.Event)) { m.send.Store(&send) }

func (m *Manager) tell(kind string, properties map[string]any) {
	if send := m.send.Load(); send != nil {
		(*send)(gateway.Event{Type: kind, Properties: properties})
	}
}

// Forget drops what is remembered of a root session. What is kept in its sandbox goes with that.
func (m *Manager) Forget(root string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w := m.worlds[root]; w != nil && w.uses == 0 {
		delete(m.worlds, root)
	}
}

// enter waits for the turn to work on the states of a root session's files. leave gives it back.
func (m *Manager) enter(ctx context.Context, root string) (*world, error) {
	m.mu.Lock()
	w := m.worlds[root]
	if w == nil {
		if len(m.worlds) >= maxWorlds {
			for other, old := range m.worlds { // what is forgotten costs a look into the sandbox
				old.mu.Lock()
				idle := old.uses == 0 && len(old.running) == 0 && len(old.ended) == 0
				old.mu.Unlock()
				if idle {
					delete(m.worlds, other)
				}
			}
		}
		w = &world{turn: make(chan struct{}, 1), marked: map[string]bool{}, running: map[string]int{}, ended: map[string]bool{}}
		m.worlds[root] = w
	}
	w.uses++
	m.mu.Unlock()
	select {
	case w.turn <- struct{}{}:
		return w, nil
	case <-ctx.Done():
		m.release(w)
		return nil, fmt.Errorf("wait for the session's files: %w", context.Cause(ctx))
	}
}

func (m *Manager) leave(w *world) {
	<-w.turn
	m.release(w)
}

func (m *Manager) release(w *world) {
	m.mu.Lock()
	w.uses--
	m.mu.Unlock()
}

// store opens the states of a root session's files.
func (m *Manager) store(ctx context.Context, root string) (*snapshot.Store, error) {
	box, err := m.cfg.Sandbox(ctx, root)
	if err != nil {
		return nil, err
	}
	return snapshot.Open(box, m.cfg.Project, m.cfg.Home), nil
}

// validMessage is what a message's id looks like; it becomes part of a name under which a state is kept.
var validMessage = regexp.MustCompile(`^msg_[A-Za-z0-9]{1,64}$`)

// validSession is what a session's id looks like; it becomes part of a path of OpenCode's API, and of a name.
var validSession = regexp.MustCompile(`^ses_[A-Za-z0-9]{1,64}$`)

func beforeName(message string) string { return "steps/" + message + "/before" }
func afterName(message string) string  { return "steps/" + message + "/after" }
