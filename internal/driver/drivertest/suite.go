package drivertest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/idmap/idmaptest"
	"github.com/tongs-dev/tongs/internal/image"
	"github.com/tongs-dev/tongs/sandbox"
)

// Suite says how to test a driver.
type Suite struct {
	// New makes a driver that keeps everything in home and runs this guest.
	New func(home string, guest driver.Guest) (driver.Driver, error)

	// Skip gives the reason why this driver can't run here, or "".
	Skip func() string

	// Leaks lists what there is on this machine of the sandboxes of a home besides what List knows:
	// directories, cgroups, mounts, processes, sockets.
	Leaks func(home string) ([]string, error)

	// NoLimits gives the reason why commands can't be limited here, or "".
	NoLimits func() string

	// OneUser says that a sandbox has one user id only: its user owns the whole tree, and on the host is
	// whoever runs the tests.
	OneUser func() bool

	// OwnKernel says that a sandbox's programs run on a kernel of the sandbox's own, gVisor's, which the host
	// sees as one process, and which differs from Linux:
	//   - more memory than the limit, or processes that come and go without end, end the whole sandbox. Its files
	//     stay, and it can be started again.
	//   - What may not be written is refused for lack of rights before it is for being read-only.
	//   - Set-user-id programs never count, without a mount saying so, and there is no list of keys.
	//   - Named pipes are gone with the guest, and aren't copied to a fork. Holes in files are copied as zeros.
	//     Times of files differ by parts of a second between what it says and what is kept.
	//   - It doesn't tell which process listens on a port.
	OwnKernel bool

	// Brief leaves out what takes long (the contract of sandboxes, many of them at once) unless TONGS_TEST_LONG
	// is set: for drivers that share that part of the work with one for which all of it runs.
	Brief bool

	// KeepsGuest says that the driver keeps a copy of the guest binary in a home once it has made a sandbox there.
	KeepsGuest bool

	// HostEnv is what a test binary that plays the host needs in its environment to make the same driver.
	HostEnv []string

	// NoRoot gives the reason why commands can't run as a sandbox's root here, or "". Nil is "".
	NoRoot func() string

	// NoFence gives the reason why commands have no second fence around them, which keeps even a sandbox's root off the
	// guest, or "". Nil: this driver has none.
	NoFence func() string

	// Harmless names rows of the table of escapes that are possible in this driver's sandboxes, and says why they
	// lead nowhere. "root: " before the name is that this is so for a sandbox's root only.
	Harmless map[string]string
}

func (s Suite) noFence() string {
	if s.NoFence == nil {
		return "this driver has no second fence"
	}
	return s.NoFence()
}

func (s Suite) noRoot() string {
	if s.NoRoot == nil {
		return ""
	}
	return s.NoRoot()
}

// patience bounds everything that must happen; leakPatience what must be gone.
const (
	patience     = 60 * time.Second
	leakPatience = 10 * time.Second
)

// hostEnv makes a test binary play the process that makes a sandbox and is killed: its value is the
// home. guestEnv tells it which guest.
const (
	hostEnv  = "TONGS_DRIVERTEST_HOST"
	guestEnv = "TONGS_DRIVERTEST_GUEST"
	loopEnv  = "TONGS_DRIVERTEST_LOOP"
)

// Main runs the tests of a package, or plays the host for one of them. Its result is for os.Exit.
func Main(m *testing.M, s Suite) int {
	if home := os.Getenv(hostEnv); home != "" {
		if err := playHost(s, home); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	if what := os.Getenv(probeEnv); what != "" {
		return runProbe(what, os.Getenv(probeArg))
	}
	os.Setenv(canaryEnv, "a secret of the host")
	code := m.Run()
	if scratchDir != "" {
		os.RemoveAll(scratchDir)
	}
	return code
}

// playHost makes a sandbox, says so, and waits to be killed; or makes and removes them for ever.
func playHost(s Suite, home string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	d, err := s.New(home, driver.Guest{Path: os.Getenv(guestEnv)})
	if err != nil {
		return err
	}
	if os.Getenv(loopEnv) == loopCheckpoint {
		return errors.Join(playCheckpoints(ctx, d), d.Close())
	}
	root, _, err := image.Host(ctx, image.HostConfig{Dir: imageDir(home)})
	if err != nil {
		return err
	}
	spec := driver.Spec{ID: "orphan", Image: root, Labels: map[string]string{"of": "a dead host"}}
	if way := os.Getenv(loopEnv); way != "" {
		return errors.Join(playLoop(ctx, d, spec, way), d.Close())
	}
	if err := d.Create(ctx, spec); err != nil {
		return err
	}
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func imageDir(home string) string { return filepath.Join(filepath.Dir(home), "images") }

// parts are the suite's.
var parts = []struct {
	name string
	run  func(*testing.T, Suite)
}{
	{"Life", testLife}, {"Refusals", testRefusals}, {"Places", testPlaces}, {"Given", testGiven}, {"Separation", testSeparation},
	{"HostInvisible", testHostInvisible}, {"Pids", testPids}, {"Memory", testMemory}, {"Meminfo", testMeminfo}, {"Tmp", testTmp}, {"HostKilled", testHostKilled},
	{"HostKilledAnywhere", testHostKilledAnywhere}, {"TwoHosts", testTwoHosts}, {"FullDisk", testFullDisk}, {"NoInodes", testNoInodes}, {"FullLater", testFullLater}, {"GuestKilled", testGuestKilled}, {"Parallel", testParallel}, {"Many", testMany}, {"Escapes", testEscapes}, {"Descriptors", testDescriptors}, {"Runtimes", testRuntimes},
	{"CancelledCreate", testCancelledCreate}, {"SameID", testSameID}, {"Contract", testContract}, {"Egress", testEgress}, {"Fork", testFork},
	{"Layers", testLayers}, {"ManyLayers", testManyLayers}, {"Root", testRoot}, {"Checkpoint", testCheckpoint},
}

// takeLong are the tests that Suite.Brief leaves out.
var takeLong = []string{"Contract", "Parallel", "Many"}

// Run runs the suite.
func Run(t *testing.T, s Suite) {
	if reason := s.Skip(); reason != "" {
		t.Skip(reason)
	}
	for _, test := range parts {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if s.Brief && os.Getenv("TONGS_TEST_LONG") == "" && slices.Contains(takeLong, test.name) {
				t.Skip("takes long; TONGS_TEST_LONG=1 runs it")
			}
			test.run(t, s)
		})
	}
}

// bed is a driver with a home of its own for one test.
type bed struct {
	driver.Driver
	s     Suite
	home  string
	image image.Root
}

func newBed(t testing.TB, s Suite) *bed {
	t.Helper()
	home := filepath.Join(idmaptest.TempDir(t), "home")
	d, err := s.New(home, GuestBinary(t))
	if err != nil {
		t.Fatal(err)
	}
	root, _, err := image.Host(t.Context(), image.HostConfig{Dir: imageDir(home)})
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{d, s, home, root}
	t.Cleanup(func() { b.tearDown(t) })
	return b
}

// tearDown destroys what the test has left, and looks whether anything is left of it.
func (b *bed) tearDown(t testing.TB) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	all, err := b.List(ctx)
	if err != nil {
		t.Error(err)
	}
	for _, st := range all {
		if err := b.Destroy(ctx, st.ID); err != nil {
			t.Errorf("destroy %s: %v", st.ID, err)
		}
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	for _, l := range b.leaks(t) {
		t.Errorf("left over: %s", l)
	}
}

// ending is a context for what is undone after a test, when the test's own has ended.
func (b *bed) ending(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func (b *bed) spec(id string) driver.Spec { return driver.Spec{ID: id, Image: b.image} }

func (b *bed) create(t testing.TB, spec driver.Spec) {
	t.Helper()
	if err := b.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
}

// connect opens a client, closed at the end of the test.
func (b *bed) connect(t testing.TB, id string) *sandbox.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := sandbox.Connect(ctx, func(ctx context.Context) (net.Conn, error) { return b.Dial(ctx, id) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// bash runs a script and gives its result.
func bash(t testing.TB, c *sandbox.Client, script string) *sandbox.ExecResult {
	t.Helper()
	return bashAs(t, c, "", script)
}

func bashAs(t testing.TB, c *sandbox.Client, user, script string) *sandbox.ExecResult {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	res, err := c.Exec(ctx, sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"bash", "-c", script}, User: user, Timeout: patience / 2}})
	if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	return res
}

// output runs a script that must succeed and gives what it printed.
func output(t testing.TB, c *sandbox.Client, script string) string {
	t.Helper()
	return outputAs(t, c, "", script)
}

func outputAs(t testing.TB, c *sandbox.Client, user, script string) string {
	t.Helper()
	res := bashAs(t, c, user, script)
	if !res.Exit.Success() {
		t.Fatalf("%s: %+v\n%s%s", script, res.Exit, res.Stdout, res.Stderr)
	}
	return strings.TrimSuffix(string(res.Stdout), "\n")
}

func wantCode(t testing.TB, err error, want sandbox.Code) {
	t.Helper()
	var e *sandbox.Error
	if !errors.As(err, &e) || e.Code != want {
		t.Errorf("got error %v, want one with code %s", err, want)
		return
	}
	if e.Op == "" || e.Message == "" {
		t.Errorf("error %#v has no operation or message", e)
	}
}

func (b *bed) status(t testing.TB, id string) driver.Status {
	t.Helper()
	all, err := b.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if s.ID == id {
			return s
		}
	}
	t.Fatalf("no sandbox %q in %v", id, all)
	return driver.Status{}
}
