package fleet_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/fleet"
	"github.com/tongs-dev/tongs/sandbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// machines is a driver whose sandboxes are Cap'n Web peers in this process: enough of a guest to
// connect to, and everything that can go wrong with one.
type machines struct {
	driver.Driver // what is not overridden must not be called

	mu      sync.Mutex
	boxes   map[string]*machine
	creates int
	starts  int
	fail    error         // of the next Create
	gate    chan struct{} // if set, Create waits until it is closed
}

type machine struct {
	status driver.Status
	conns  []net.Conn // the guest's ends
	from   string
	root   bool
}

func newMachines() *machines { return &machines{boxes: make(map[string]*machine)} }

func (m *machines) Create(ctx context.Context, spec driver.Spec) error {
	if m.gate != nil {
		select {
		case <-m.gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.creates++
	if err := m.fail; err != nil {
		m.fail = nil
		return err
	}
	m.boxes[spec.ID] = &machine{from: spec.From, root: spec.Root, status: driver.Status{ID: spec.ID, Labels: spec.Labels, Running: true, Created: time.Now()}}
	return nil
}

func (m *machines) Start(_ context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.starts++
	m.boxes[id].status.Running = true
	return nil
}

func (m *machines) Dial(_ context.Context, id string) (net.Conn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	box, ok := m.boxes[id]
	if !ok || !box.status.Running {
		return nil, &sandbox.Error{Code: driver.CodeNotRunning, Op: "dial", Message: "not running"}
	}
	host, guest := net.Pipe()
	box.conns = append(box.conns, guest)
	go func() {
		if _, err := sandbox.ReadGreetingLine(guest); err != nil {
			guest.Close()
			return
		}
		fmt.Fprintf(guest, "OK %d %s\n", sandbox.Protocol, "00112233")
		capnweb.NewSession(capnweb.NewStreamTransport(guest, 0), capnweb.NewTarget(capnweb.Methods{
			"agent": capnweb.Getter(func() *capnweb.Target {
				return capnweb.NewTarget(capnweb.Methods{"whoami": func() string { return id }})
			}),
		}))
	}()
	return host, nil
}

// crash ends a guest as SIGKILL would.
func (m *machines) crash(id string) error {
	m.mu.Lock()
	box, ok := m.boxes[id]
	if !ok {
		m.mu.Unlock()
		return driver.NotFound("crash", id)
	}
	box.status.Running = false
	conns := box.conns
	box.conns = nil
	m.mu.Unlock()
	for _, conn := range conns {
		conn.Close()
	}
	return nil
}

func (m *machines) Stop(_ context.Context, id string) error { return m.crash(id) }

func (m *machines) Destroy(_ context.Context, id string) error {
	if err := m.crash(id); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.boxes, id)
	return nil
}

func (m *machines) List(context.Context) ([]driver.Status, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []driver.Status
	for _, box := range m.boxes {
		all = append(all, box.status)
	}
	return all, nil
}

func (m *machines) count() (creates, starts int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.creates, m.starts
}

func newFleet(t *testing.T, m *machines) *fleet.Fleet {
	t.Helper()
	return newFleetWith(t, m, fleet.Config{})
}

func newFleetWith(t *testing.T, m *machines, cfg fleet.Config) *fleet.Fleet {
	t.Helper()
	cfg.Driver, cfg.Recipe = m, driver.Spec{Hostname: "box"}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	f := fleet.New(cfg)
	t.Cleanup(func() {
		if err := f.DestroyAll(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return f
}

func session(t *testing.T, f *fleet.Fleet, root string) fleet.Sandbox {
	t.Helper()
	s, err := f.Session(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestOneSandboxForEachSession(t *testing.T) {
	t.Parallel()
	m := newMachines()
	f := newFleet(t, m)
	ids := make([]string, 64)
	var group sync.WaitGroup
	for i := range ids {
		group.Go(func() {
			s, err := f.Session(t.Context(), fmt.Sprintf("ses_%d", i%4))
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = s.ID
		})
	}
	group.Wait()
	for i, id := range ids {
		if id != ids[i%4] {
			t.Errorf("call %d got %s, call %d of the same session %s", i, id, i%4, ids[i%4])
		}
	}
	if creates, _ := m.count(); creates != 4 || len(slices.Compact(slices.Sorted(slices.Values(ids)))) != 4 {
		t.Errorf("%d sandboxes made for 4 sessions: %v", creates, ids[:4])
	}
}

func TestAgentIsTheSandboxsOwn(t *testing.T) {
	t.Parallel()
	f := newFleet(t, newMachines())
	want := session(t, f, "ses_a").ID
	stub, err := f.Agent(t.Context(), "ses_a")
	if err != nil {
		t.Fatal(err)
	}
	defer stub.Close()
	if got, err := capnweb.Call[string](t.Context(), stub, "whoami"); err != nil || got != want {
		t.Errorf("whoami = %q, %v; want %q", got, err, want)
	}
}

func TestCrashedGuestIsStartedAgain(t *testing.T) {
	t.Parallel()
	m := newMachines()
	var logged bytes.Buffer
	f := newFleetWith(t, m, fleet.Config{Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	before := session(t, f, "ses_a")
	if err := m.crash(before.ID); err != nil {
		t.Fatal(err)
	}
	select {
	case <-before.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the connection does not end with its guest")
	}
	after := session(t, f, "ses_a")
	if creates, starts := m.count(); after.ID != before.ID || creates != 1 || starts != 1 {
		t.Errorf("id %s then %s, %d made, %d started", before.ID, after.ID, creates, starts)
	}
	f.Close()
	if !strings.Contains(logged.String(), "the connection to a sandbox broke") {
		t.Errorf("nothing says why it was started again:\n%s", &logged)
	}
}

func TestRecover(t *testing.T) {
	t.Parallel()
	m := newMachines()
	first := newFleet(t, m)
	one, two := session(t, first, "ses_a").ID, session(t, first, "ses_b").ID
	first.Close() // the host is gone, the sandboxes are not
	if err := m.crash(two); err != nil {
		t.Fatal(err)
	}

	second := newFleet(t, m)
	if n, err := second.Recover(t.Context()); n != 2 || err != nil {
		t.Fatalf("Recover = %d, %v", n, err)
	}
	if id, ok := second.ID("ses_a"); !ok || id != one {
		t.Errorf("ID = %q, %v", id, ok)
	}
	if got := session(t, second, "ses_a").ID; got != one {
		t.Errorf("session a has %s, had %s", got, one)
	}
	if got := session(t, second, "ses_b").ID; got != two {
		t.Errorf("session b has %s, had %s", got, two)
	}
	if creates, starts := m.count(); creates != 2 || starts != 1 {
		t.Errorf("%d made, %d started; want the running one reconnected and the other started", creates, starts)
	}
}

func TestFailedCreateIsTriedAgain(t *testing.T) {
	t.Parallel()
	m := newMachines()
	m.fail = &sandbox.Error{Code: sandbox.CodeNoSpace, Op: "create", Message: "full"}
	f := newFleet(t, m)
	if _, err := f.Session(t.Context(), "ses_a"); sandbox.CodeOf(err) != sandbox.CodeNoSpace {
		t.Fatalf("err = %v", err)
	}
	session(t, f, "ses_a")
}

func TestOneWhoGivesUpDoesNotEndItForOthers(t *testing.T) {
	t.Parallel()
	m := newMachines()
	m.gate = make(chan struct{})
	f := newFleet(t, m)
	impatient, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() { _, err := f.Session(impatient, "ses_a"); gone <- err }()
	patient := make(chan error, 1)
	go func() { _, err := f.Session(t.Context(), "ses_a"); patient <- err }()
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("the impatient one got %v", err)
	}
	close(m.gate)
	if err := <-patient; err != nil {
		t.Errorf("the patient one got %v", err)
	}
}

func TestForget(t *testing.T) {
	t.Parallel()
	m := newMachines()
	f := newFleet(t, m)
	session(t, f, "ses_a")
	if err := f.Forget(t.Context(), "ses_a"); err != nil {
		t.Fatal(err)
	}
	if err := f.Forget(t.Context(), "ses_a"); err != nil {
		t.Errorf("again: %v", err)
	}
	if all, _ := m.List(t.Context()); len(all) != 0 {
		t.Errorf("left: %v", all)
	}
	// A call that was under way asks again; its session is gone, and so is the sandbox.
	if _, err := f.Session(t.Context(), "ses_a"); sandbox.CodeOf(err) != "SESSION_GONE" {
		t.Errorf("err = %v", err)
	}
}

func TestStoppedFleetMakesNothing(t *testing.T) {
	t.Parallel()
	m := newMachines()
	f := newFleet(t, m)
	session(t, f, "ses_a")
	if err := f.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Session(t.Context(), "ses_b"); sandbox.CodeOf(err) != "SHUTTING_DOWN" {
		t.Errorf("err = %v", err)
	}
	all, _ := m.List(t.Context())
	if len(all) != 1 || all[0].Running {
		t.Errorf("after Stop: %+v", all)
	}
}

func TestNoSessionNoSandbox(t *testing.T) {
	t.Parallel()
	if _, err := newFleet(t, newMachines()).Session(t.Context(), ""); sandbox.CodeOf(err) != "NO_SESSION" {
		t.Errorf("err = %v", err)
	}
}
