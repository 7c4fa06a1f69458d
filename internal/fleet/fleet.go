package fleet

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/sandbox"
)

// Labels that the fleet writes into each sandbox, so that it finds them again after a restart.
const (
	labelSession = "tongs.session" // the root session's id
	labelName    = "tongs.name"    // of a sandbox that belongs to no session
)

const (
	// startTimeout bounds one attempt to make, start and reach a sandbox, whoever waits for it.
	startTimeout = 60 * time.Second
	// stopTimeout bounds how long one sandbox may take to end.
	stopTimeout = 30 * time.Second
	// parallelStops is how many sandboxes are ended at the same time.
	parallelStops = 16
)

// Config is what a fleet needs. Driver, Recipe and Logger are required.
type Config struct {
	Driver driver.Driver
	// Recipe is how a session's sandbox is made. The fleet fills in ID and its labels.
	Recipe driver.Spec
	// Image is what the recipe's image is called. Default HostImage.
	Image  string
	Logger *slog.Logger
	// Prepare, if set, completes the recipe of each session's sandbox that is about to be made, unless it starts with the
	// files of another one.
	Prepare Preparation
	// Reached, if set, is told of each sandbox but the reserved ones whenever a connection to it has been
	// made, before anybody gets that. Its error is logged and keeps nobody from the sandbox. Ended is
	// told when one has been destroyed.
	Reached func(ctx context.Context, s Sandbox) error
	Ended   func(id string)
	// Reserved are names of sandboxes that are not for others: they are not listed, found or removed
	// by name.
	Reserved []string
	// MaxNamed is how many named sandboxes Create makes. Default DefaultMaxNamed.
	MaxNamed int
}

// Preparation completes the recipe of a sandbox that is about to be made, with its labels, which it may change. What it
// holds for that is let go by release, once the sandbox is there or has failed. It may take minutes.
type Preparation func(ctx context.Context, spec *driver.Spec) (release func(), err error)

// LabelProject is the label in which a Preparation notes which project's files a sandbox has. Forks have it, too.
const LabelProject = "tongs.project"

// Fleet is safe for use by many goroutines.
type Fleet struct {
	cfg Config

	mu      sync.Mutex
	members map[key]*member
	gone    map[key]struct{} // forgotten ones, at most maxGone: calls that come late get no new sandbox
	closed  bool
	forks   int           // whose session is not known yet
	begun   chan struct{} // closed when there are none any more; nil while there are none

	abandoned sync.WaitGroup // what Create has to take back
}

// maxGone bounds what is remembered of forgotten sessions. Late calls come within minutes.
const maxGone = 4096

// key is what a sandbox belongs to: a root session or a name.
type key struct{ label, value string }

// New makes an empty fleet. Recover fills it.
func New(cfg Config) *Fleet {
	return &Fleet{cfg: cfg, members: make(map[key]*member), gone: make(map[key]struct{})}
}

// Recover finds the sandboxes that an earlier host has left, running or not, and returns how many.
func (f *Fleet) Recover(ctx context.Context) (int, error) {
	all, err := f.cfg.Driver.List(ctx)
	if err != nil {
		return 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	found := 0
	for _, status := range all {
		if status.Damaged != "" {
			f.cfg.Logger.Warn("a sandbox cannot be used; its directory is kept", "sandbox", status.ID, "reason", status.Damaged)
		}
		k, ok := keyOf(status.Labels)
		if !ok {
			continue
		}
		m := f.newMember(k, status.ID, true)
		m.project = status.Labels[LabelProject]
		f.members[k] = m
		found++
	}
	return found, nil
}

func keyOf(labels map[string]string) (key, bool) {
	for _, label := range []string{labelSession, labelName} {
		if value := labels[label]; value != "" {
			return key{label, value}, true
		}
	}
	return key{}, false
}

// Sandbox is a reached sandbox.
type Sandbox struct {
	ID string // the driver's
	*sandbox.Client
}

// Session returns the sandbox of a root session, and makes, starts or reconnects it first if need
// be. Many callers share one attempt; one that gives up does not end it for the others.
func (f *Fleet) Session(ctx context.Context, root string) (Sandbox, error) {
	if root == "" {
		return Sandbox{}, &sandbox.Error{Code: "NO_SESSION", Op: "find sandbox", Message: "the call names no session",
			Hint: "only calls that belong to an OpenCode session have a sandbox"}
	}
	return f.reach(ctx, key{labelSession, root}, f.cfg.Recipe)
}

// Named returns the sandbox of that name, made from spec if there is none.
func (f *Fleet) Named(ctx context.Context, name string, spec driver.Spec) (Sandbox, error) {
	return f.reach(ctx, key{labelName, name}, spec)
}

// Agent returns the stub that OpenCode's plugin gets for a root session. The caller closes it.
func (f *Fleet) Agent(ctx context.Context, root string) (*capnweb.Stub, error) {
	s, err := f.Session(ctx, root)
	if err != nil {
		return nil, err
	}
	return s.Agent(), nil
}

// ID returns the sandbox's id of a root session that has one already.
func (f *Fleet) ID(root string) (string, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, ok := f.members[key{labelSession, root}]
	if !ok {
		return "", false
	}
	return m.id, true
}

// Forget destroys the sandbox of a root session with its files, for good: a call of that session that
// comes later is refused. It is no error when there is none.
func (f *Fleet) Forget(ctx context.Context, root string) error {
	return f.destroy(ctx, key{labelSession, root})
}

func (f *Fleet) destroy(ctx context.Context, k key) error {
	f.mu.Lock()
	m, ok := f.members[k]
	delete(f.members, k)
	if k.label == labelSession { // a name can be used again
		if len(f.gone) >= maxGone {
			clear(f.gone)
		}
		f.gone[k] = struct{}{}
	}
	f.mu.Unlock()
	if !ok {
		return nil
	}
	m.retire()
	err := f.cfg.Driver.Destroy(ctx, m.id)
	if err == nil {
		f.ended(m)
		f.cfg.Logger.Info("sandbox destroyed", "sandbox", m.id, k.label, k.value)
	}
	return err
}

// Stop ends every sandbox's processes and keeps the files. The fleet makes nothing afterwards.
func (f *Fleet) Stop(ctx context.Context) error {
	return f.each(ctx, "stop", f.cfg.Driver.Stop)
}

// DestroyAll ends every sandbox and removes its files. The fleet makes nothing afterwards.
func (f *Fleet) DestroyAll(ctx context.Context) error {
	return f.each(ctx, "destroy", f.cfg.Driver.Destroy)
}

// each closes the fleet and does something to all sandboxes, some at a time. Errors are joined.
func (f *Fleet) each(ctx context.Context, what string, do func(context.Context, string) error) error {
	members := f.close()
	var group errgroup.Group
	group.SetLimit(parallelStops)
	errs := make([]error, len(members))
	for i, m := range members {
		group.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, stopTimeout)
			defer cancel()
			m.retire()
			if err := do(ctx, m.id); err != nil && sandbox.CodeOf(err) != sandbox.CodeSandboxNotFound {
				errs[i] = fmt.Errorf("%s sandbox %s: %w", what, m.id, err)
			}
			return nil
		})
	}
	_ = group.Wait() // the errors are in errs, each of them
	return errors.Join(errs...)
}

// Close drops the connections and leaves the sandboxes running for the next host.
func (f *Fleet) Close() {
	for _, m := range f.close() {
		m.retire()
	}
}

// close makes the fleet refuse what comes, waits for what is being taken back, and returns its members.
func (f *Fleet) close() []*member {
	f.mu.Lock()
	f.closed = true
	members := slices.Collect(maps.Values(f.members))
	f.mu.Unlock()
	f.abandoned.Wait()
	return members
}

func (f *Fleet) reach(ctx context.Context, k key, spec driver.Spec) (Sandbox, error) {
	f.mu.Lock()
	if err := f.forked(ctx, k); err != nil {
		f.mu.Unlock()
		return Sandbox{}, err
	}
	if f.closed {
		f.mu.Unlock()
		return Sandbox{}, errStopping("reach sandbox")
	}
	if _, gone := f.gone[k]; gone {
		f.mu.Unlock()
		return Sandbox{}, &sandbox.Error{Code: "SESSION_GONE", Op: "reach sandbox", Message: "the session's sandbox was destroyed, with its files",
			Hint: "start a new session"}
	}
	m, ok := f.members[k]
	if !ok {
		m = f.newMember(k, newID(), false)
		if k.label == labelSession {
			m.prepare = f.cfg.Prepare
		}
		f.members[k] = m
	}
	f.mu.Unlock()
	client, err := m.reach(ctx, spec)
	if err != nil {
		return Sandbox{}, err
	}
	return Sandbox{ID: m.id, Client: client}, nil
}

func errStopping(op string) error {
	return sandbox.Errf(sandbox.CodeShuttingDown, op, "tongs is stopping", "start it again with `tongs up`; files are kept")
}

// reached and ended tell those who asked to be told.
func (f *Fleet) reached(ctx context.Context, m *member, client *sandbox.Client) {
	if f.cfg.Reached == nil || f.reserved(m.key) {
		return
	}
	if err := f.cfg.Reached(ctx, Sandbox{ID: m.id, Client: client}); err != nil {
		f.cfg.Logger.Warn("sandbox without its network", "sandbox", m.id, "error", err)
	}
}

func (f *Fleet) ended(m *member) {
	if f.cfg.Ended != nil && !f.reserved(m.key) {
		f.cfg.Ended(m.id)
	}
}

// newID is short enough for a host name and a path, and not to be guessed: 80 random bits.
func newID() string {
	var random [10]byte
	rand.Read(random[:])
	return strings.ToLower(base32.StdEncoding.EncodeToString(random[:]))
}

// dialer reaches a sandbox's guest.
func (f *Fleet) dialer(id string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) { return f.cfg.Driver.Dial(ctx, id) }
}
