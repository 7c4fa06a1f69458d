package drivertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/egress"
	"github.com/tongs-dev/tongs/sandbox"
)

// counting counts into a file and its output. It ends by itself when it is told to.
const counting = `i=0; while ! test -e stop; do i=$((i+1)); echo $i; echo $i > count; sleep 0.02; done; exit 7`

// testCheckpoint holds that what runs on a kernel of its own can be written down and goes on, and that other
// sandboxes say that they can't.
func testCheckpoint(t *testing.T, s Suite) {
	if !s.OwnKernel {
		testNoCheckpoint(t, s)
		return
	}
	for name, run := range map[string]func(*testing.T, Suite){"Kept": testCheckpointKept, "Network": testCheckpointNetwork, "Fails": testCheckpointFails, "Killed": testCheckpointKilled} {
		t.Run(name, func(t *testing.T) { t.Parallel(); run(t, s) })
	}
}

func testNoCheckpoint(t *testing.T, s Suite) {
	b := newBed(t, s)
	cp, ok := b.Driver.(driver.Checkpointer)
	if !ok {
		t.Skip("this driver has no checkpoints")
	}
	b.create(t, b.spec("plain"))
	c := b.connect(t, "plain")
	for name, do := range map[string]func(context.Context, string) error{"Checkpoint": cp.Checkpoint, "Restore": cp.Restore, "DropCheckpoint": cp.DropCheckpoint} {
		err := do(t.Context(), "plain")
		wantCode(t, err, sandbox.CodeNotSupported)
		if err == nil || !strings.Contains(err.Error(), "--driver gvisor") {
			t.Errorf("%s: %v", name, err)
		}
		wantCode(t, do(t.Context(), "nobody"), sandbox.CodeSandboxNotFound)
	}
	output(t, c, "true")
}

// count reads how far a counter is, once that is further than after.
func count(t *testing.T, c *sandbox.Client, after int) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(output(t, c, "n=; while test \"${n:-0}\" -le "+strconv.Itoa(after)+"; do sleep 0.01; read n < count; done; echo $n")))
	must(t, err)
	return n
}

// lines reads output from an offset on, until it has so many lines, and gives where the next begins.
func lines(t *testing.T, c *sandbox.Client, id string, from int64, n int) (string, int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := c.Output(ctx, id, sandbox.OutputOptions{Offset: from, Follow: true})
	must(t, err)
	defer out.Close()
	var text strings.Builder
	for strings.Count(text.String(), "\n") < n {
		_, data, dropped, err := out.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		if dropped != 0 {
			t.Errorf("%d bytes of output are missing", dropped)
		}
		text.Write(data)
	}
	return text.String(), from + int64(text.Len())
}

func testCheckpointKept(t *testing.T, s Suite) {
	b := newBed(t, s)
	cp := b.Driver.(driver.Checkpointer)
	b.create(t, b.spec("one"))
	c := b.connect(t, "one")
	before, err := c.Start(t.Context(), sandbox.ProcessSpec{ID: "counter", Mode: sandbox.Follow, Argv: []string{"bash", "-c", counting}})
	must(t, err)
	output(t, c, "echo kept > /tmp/memory")
	n := count(t, c, 5)
	text, offset := lines(t, c, "counter", 0, 3)
	if !strings.HasPrefix(text, "1\n2\n3\n") {
		t.Errorf("%q", text)
	}
	life := c.Incarnation()
	began := time.Now()
	must(t, cp.Checkpoint(t.Context(), "one"))
	t.Logf("checkpoint: %v", time.Since(began))
	<-c.Done()
	if st := b.status(t, "one"); st.Running {
		t.Errorf("after the checkpoint: %+v", st)
	}
	wantCode(t, cp.Checkpoint(t.Context(), "one"), driver.CodeNotRunning)
	checkModes(t, filepath.Join(b.home, "sandboxes", "one", "checkpoint"))

	// Another host.
	must(t, b.Close())
	b.Driver, err = s.New(b.home, GuestBinary(t))
	must(t, err)
	cp = b.Driver.(driver.Checkpointer)
	began = time.Now()
	must(t, cp.Restore(t.Context(), "one"))
	t.Logf("restore: %v", time.Since(began))
	c = b.connect(t, "one")
	if c.Incarnation() != life {
		t.Errorf("another life: %s, then %s", life, c.Incarnation())
	}
	after, err := c.Get(t.Context(), "counter")
	must(t, err)
	if !after.Running || after.PID != before.PID {
		t.Errorf("the process was %+v and is %+v", before, after)
	}
	if m := count(t, c, n); m < n {
		t.Errorf("counted to %d, then to %d", n, m)
	}
	more, _ := lines(t, c, "counter", offset, 40)
	last, err := strconv.Atoi(strings.Fields(text)[len(strings.Fields(text))-1])
	must(t, err)
	for i, f := range strings.Fields(more) {
		if want := strconv.Itoa(last + 1 + i); f != want {
			t.Fatalf("output goes on with %s, want %s: %q", f, want, more)
		}
	}
	if got := output(t, c, "cat /tmp/memory"); got != "kept" {
		t.Errorf("/tmp: %q", got)
	}
	output(t, c, "touch stop")
	end, err := c.Wait(t.Context(), "counter")
	must(t, err)
	if end.Exit == nil || end.Exit.Code != 7 {
		t.Errorf("its end: %+v", end)
	}

	// Once.
	wantCode(t, cp.Restore(t.Context(), "one"), sandbox.CodeCheckpointNotFound)
	wantCode(t, cp.DropCheckpoint(t.Context(), "one"), sandbox.CodeCheckpointNotFound)
	must(t, b.Stop(t.Context(), "one"))
	wantCode(t, cp.Restore(t.Context(), "one"), sandbox.CodeCheckpointNotFound)
	must(t, b.Start(t.Context(), "one"))
	if got := output(t, b.connect(t, "one"), "ls /tmp; cat stop"); got != "opencode" {
		t.Errorf("after a fresh start: %q", got)
	}
}

func checkModes(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var total int64
	for _, e := range entries {
		info, err := e.Info()
		must(t, err)
		total += info.Size()
		if info.Mode() != 0o600 {
			t.Errorf("%s has mode %v", e.Name(), info.Mode())
		}
	}
	t.Logf("%d files, %d bytes", len(entries), total)
}

// testCheckpointNetwork holds that the policy of the network is there again, with what listens, and the limits.
func testCheckpointNetwork(t *testing.T, s Suite) {
	b := newBed(t, s)
	cp := b.Driver.(driver.Checkpointer)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "this is %s", r.Host) }))
	t.Cleanup(web.Close)
	policy, err := egress.ParsePolicy([]string{"example.com"}, nil)
	must(t, err)
	world := outside{web.Listener.Addr().String()}
	keeper := egress.NewKeeper(egress.KeeperConfig{Default: policy, Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler),
		Gate: egress.Config{Resolver: world, Dial: world.dial}})
	t.Cleanup(keeper.Close)
	spec := b.spec("out")
	spec.Network, spec.Limits = driver.NetworkEgress, driver.Limits{Pids: 60}
	b.create(t, spec)
	c := b.connect(t, "out")
	must(t, keeper.Serve(t.Context(), "out", c))
	look := func(when string) {
		t.Helper()
		for script, want := range map[string]string{
			request("example.com", 80):               "this is example.com",
			request("forbidden.example", 80):         "EGRESS_DENIED",
			"(" + request("10.0.0.1", 80) + ") 2>&1": "Connection refused",
			"getent ahostsv4 example.com":            "198.18.",
			"perl -MIO::Socket::INET -e '$c = IO::Socket::INET->new(PeerAddr => q(127.0.0.1:7777)) or die; print <$c>'": "port",
			"perl -MIO::Socket::UNIX -e '$c = IO::Socket::UNIX->new(Peer => q(/tmp/sock)) or die; print <$c>'":          "path",
		} {
			if out := bash(t, c, "timeout 20 bash -c "+quote(script)); !strings.Contains(string(out.Stdout), want) {
				t.Errorf("%s: %s\n%+v %s\n%s", when, script, out.Exit, out.Stdout, out.Stderr)
			}
		}
		if out := output(t, c, `perl -e 'for (1 .. 80) { $p = fork; defined $p or last; $p or sleep 60; push @p, $p } print scalar(@p); kill 9, @p; wait for @p'`); out == "80" || out == "0" {
			t.Errorf("%s: %s of 80 processes where there may be 60", when, out)
		}
	}
	for name, open := range map[string]string{"port": "IO::Socket::INET->new(Listen => 9, LocalAddr => q(127.0.0.1:7777))", "path": "IO::Socket::UNIX->new(Listen => 9, Local => q(/tmp/sock))"} {
		_, err := c.Start(t.Context(), sandbox.ProcessSpec{ID: name, Argv: []string{"perl", "-MIO::Socket", "-e", "$l = " + open + " or die $!; $| = 1; print qq(ready\\n); while ($a = $l->accept) { print $a q(" + name + "); close $a }"}})
		must(t, err)
		_, err = c.WaitLog(t.Context(), name, sandbox.LogWait{Text: "ready"})
		must(t, err)
	}
	look("before")
	must(t, cp.Checkpoint(t.Context(), "out"))
	must(t, b.Start(t.Context(), "out"))
	c = b.connect(t, "out")
	if res := bash(t, c, "timeout 2 bash -c "+quote(request("example.com", 80))); bytes.Contains(res.Stdout, []byte("this is")) {
		t.Errorf("connected although nobody accepts: %s", res.Stdout)
	}
	must(t, keeper.Serve(t.Context(), "out", c))
	look("after")
}

// testCheckpointFails holds that a sandbox goes on that could not be written down, and can be later.
func testCheckpointFails(t *testing.T, s Suite) {
	b, change := smallHome(t, s, "size=200m")
	cp := b.Driver.(driver.Checkpointer)
	b.create(t, b.spec("one"))
	c := b.connect(t, "one")
	before, err := c.Start(t.Context(), sandbox.ProcessSpec{ID: "counter", Mode: sandbox.Follow, Argv: []string{"bash", "-c", counting}})
	must(t, err)
	n := count(t, c, 3)
	goesOn := func(when string) {
		t.Helper()
		c = b.connect(t, "one")
		after, err := c.Get(t.Context(), "counter")
		must(t, err)
		if !after.Running || after.PID != before.PID {
			t.Fatalf("%s: the process was %+v and is %+v", when, before, after)
		}
		n = count(t, c, n)
		for _, name := range []string{"checkpoint", "checkpoint.new"} {
			if _, err := os.Lstat(filepath.Join(b.home, "sandboxes", "one", name)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: there is a %s: %v", when, name, err)
			}
		}
	}
	// A socket in the sandbox's files is one of the host's.
	_, err = c.Start(t.Context(), sandbox.ProcessSpec{ID: "server", Argv: []string{"perl", "-MIO::Socket::UNIX", "-e", "$l = IO::Socket::UNIX->new(Listen => 9, Local => q(sock)) or die $!; $| = 1; print qq(ready\\n); sleep 1000"}})
	must(t, err)
	_, err = c.WaitLog(t.Context(), "server", sandbox.LogWait{Text: "ready"})
	must(t, err)
	err = cp.Checkpoint(t.Context(), "one")
	wantCode(t, err, sandbox.CodeCheckpointFailed)
	if err == nil || !strings.Contains(err.Error(), "listens on a socket") {
		t.Errorf("it doesn't say why: %v", err)
	}
	goesOn("with a socket in a file")
	must(t, c.Kill(t.Context(), "server"))
	_, err = c.Wait(t.Context(), "server")
	must(t, err)

	// Neither space nor inodes.
	used := func() (bytes, files uint64) {
		var st unix.Statfs_t
		must(t, unix.Statfs(b.home, &st))
		return (st.Blocks - st.Bfree) * uint64(st.Bsize), st.Files - st.Ffree
	}
	size, _ := used()
	change(fmt.Sprintf("size=%dk", size/1024+512))
	connected := b.connect(t, "one")
	wantCode(t, cp.Checkpoint(t.Context(), "one"), sandbox.CodeNoSpace)
	if _, err := connected.Info(t.Context()); err != nil {
		t.Errorf("it was disturbed without need: %v", err)
	}
	goesOn("without space")
	change("size=200m")
	refused := 0
	for free := uint64(1); ; free++ {
		_, files := used()
		change(fmt.Sprintf("nr_inodes=%d", files+free))
		err := cp.Checkpoint(t.Context(), "one")
		if err == nil {
			break
		}
		wantCode(t, err, sandbox.CodeNoSpace)
		goesOn(fmt.Sprintf("with %d inodes", free))
		if refused++; refused > 30 {
			t.Fatal("30 inodes are not enough")
		}
	}
	t.Logf("%d checkpoints were refused for want of inodes", refused)
	change("nr_inodes=100000")
	if b.status(t, "one").Checkpoint.IsZero() {
		t.Error("its status doesn't tell of the checkpoint")
	}
	// What can't be read is no reason to lose it, and --fresh is the way out.
	image := filepath.Join(b.home, "sandboxes", "one", "checkpoint", "checkpoint.img")
	whole, err := os.ReadFile(image)
	must(t, err)
	must(t, os.WriteFile(image, whole[:len(whole)/2], 0o600))
	for range 2 {
		wantCode(t, b.Start(t.Context(), "one"), sandbox.CodeRestoreFailed)
	}
	must(t, os.WriteFile(image, whole, 0o600))
	must(t, b.Start(t.Context(), "one"))
	goesOn("restored")
	must(t, cp.Checkpoint(t.Context(), "one"))
	must(t, cp.DropCheckpoint(t.Context(), "one"))
	wantCode(t, cp.Restore(t.Context(), "one"), sandbox.CodeCheckpointNotFound)
	must(t, b.Start(t.Context(), "one"))
	if got := output(t, b.connect(t, "one"), "ls /tmp; test $(cat count) -ge "+strconv.Itoa(n)); got != "opencode" {
		t.Errorf("a fresh start: %q", got)
	}
	must(t, cp.Checkpoint(t.Context(), "one"))
	must(t, b.Destroy(t.Context(), "one"))
}

// playCheckpoints checkpoints and restores the one sandbox that there is, until it is killed.
func playCheckpoints(ctx context.Context, d driver.Driver) error {
	fmt.Println("ready")
	cp := d.(driver.Checkpointer)
	for ctx.Err() == nil {
		if err := cp.Checkpoint(ctx, "one"); err != nil {
			return err
		}
		if err := d.Start(ctx, "one"); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// testCheckpointKilled kills a host that is making a checkpoint or going on from one. The next one finds what ran
// in each case.
func testCheckpointKilled(t *testing.T, s Suite) {
	rounds := 8
	if os.Getenv("TONGS_TEST_LONG") != "" {
		rounds = 100
	}
	b := newBed(t, s)
	b.create(t, b.spec("one"))
	c := b.connect(t, "one")
	before, err := c.Start(t.Context(), sandbox.ProcessSpec{ID: "counter", Mode: sandbox.Follow, Argv: []string{"bash", "-c", counting}})
	must(t, err)
	n := count(t, c, 1)
	for i := range rounds {
		host := b.host(t, loopEnv+"="+loopCheckpoint)
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(900_000))*time.Microsecond)
		<-ctx.Done() // a random moment is what this test is about
		cancel()
		must(t, host.Process.Kill())
		host.Wait()
		if err := b.Start(t.Context(), "one"); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		c = b.connect(t, "one")
		after, err := c.Get(t.Context(), "counter")
		if err != nil || !after.Running || after.PID != before.PID {
			t.Fatalf("round %d: the process was %+v and is %+v, %v", i, before, after, err)
		}
		n = count(t, c, n)
		if entries, err := filepath.Glob(filepath.Join(b.home, "sandboxes", "one", "checkpoint*")); err != nil || len(entries) > 0 {
			t.Errorf("round %d: left %v, %v", i, entries, err)
		}
	}
}
