package drivertest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/sandbox"
)

// Ways of a host that makes and removes sandboxes for ever, as values of loopEnv.
const (
	loopOwn        = "own"        // with ids that no other host has
	loopCheckpoint = "checkpoint" // of the one that there is, over and over
	loopShared     = "shared"     // with the same few ids as all others
)

// loopScript is what a host of these runs in each sandbox: files, so that removing it takes a moment.
const loopScript = "mkdir d && cd d && seq 50 | xargs touch && cat /proc/self/stat > f1 && echo done"

// playLoop makes sandboxes, runs a command in each, and removes every second one, until it is killed or its standard
// input ends. However slow the machine is, the first two are made.
func playLoop(whole context.Context, d driver.Driver, spec driver.Spec, way string) error {
	ctx, cancel := context.WithCancel(whole)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	fmt.Println("ready")
	for i := 0; whole.Err() == nil && (ctx.Err() == nil || i < 2); i++ {
		within := ctx
		if i < 2 {
			within = whole
		}
		spec.ID = fmt.Sprintf("loop-%d-%d", os.Getpid(), i)
		if way == loopShared {
			spec.ID = fmt.Sprintf("shared-%d", rand.IntN(3))
		}
		err := playOnce(within, d, spec, way == loopShared || i%2 == 0)
		if code := sandbox.CodeOf(err); way == loopShared && (code == sandbox.CodeAlreadyExists || code == sandbox.CodeSandboxNotFound || code == driver.CodeNotRunning || code == sandbox.CodeConnectionLost || code == driver.CodeBusy) {
			err = nil // another was faster
		}
		if err != nil && within.Err() == nil {
			return err
		}
	}
	return nil
}

func playOnce(ctx context.Context, d driver.Driver, spec driver.Spec, destroy bool) error {
	if err := d.Create(ctx, spec); err != nil {
		return err
	}
	if err := playCommand(ctx, d, spec.ID); err != nil {
		return err
	}
	if !destroy {
		return nil
	}
	return d.Destroy(ctx, spec.ID)
}

func playCommand(ctx context.Context, d driver.Driver, id string) error {
	c, err := sandbox.Connect(ctx, func(ctx context.Context) (net.Conn, error) { return d.Dial(ctx, id) })
	if err != nil {
		return err
	}
	defer c.Close()
	res, err := c.Exec(ctx, sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"sh", "-c", loopScript}}})
	if err == nil && string(res.Stdout) != "done\n" {
		err = fmt.Errorf("%+v: %s%s", res.Exit, res.Stdout, res.Stderr)
	}
	return err
}

// testHostKilledAnywhere kills a host that makes, uses and removes sandboxes all the time. Whatever it was at,
// the next one cleans up, and what was finished works.
func testHostKilledAnywhere(t *testing.T, s Suite) {
	rounds := 20
	if os.Getenv("TONGS_TEST_LONG") != "" {
		rounds = 200
	}
	b := newBed(t, s)
	for i := range rounds {
		host := b.host(t, loopEnv+"="+loopOwn)
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(120_000))*time.Microsecond)
		<-ctx.Done() // a random moment is what this test is about
		cancel()
		if err := host.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		host.Wait()
		done, err := b.Recover(t.Context())
		if err != nil {
			t.Fatalf("round %d: %v after %q", i, err, done)
		}
		all, err := b.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, st := range all {
			if !st.Running || st.Damaged != "" {
				t.Errorf("round %d: a finished sandbox is not running: %+v", i, st)
			}
			if got := output(t, b.connect(t, st.ID), "echo works"); got != "works" {
				t.Errorf("round %d: %q", i, got)
			}
			if err := b.Destroy(t.Context(), st.ID); err != nil {
				t.Fatal(err)
			}
		}
		for _, l := range b.leaks(t) {
			t.Errorf("round %d: left over after %q: %s", i, done, l)
		}
	}
}

// testTwoHosts lets several processes work on one home, with ids of their own and with the same ones, while this one
// recovers and looks for leaks all the time, as \`tongs doctor\` does. None disturbs another, and none sees a leak.
func testTwoHosts(t *testing.T, s Suite) {
	b := newBed(t, s)
	length := 2 * time.Second
	if os.Getenv("TONGS_TEST_LONG") != "" {
		length = time.Minute
	}
	var wg sync.WaitGroup
	for _, way := range []string{loopOwn, loopOwn, loopShared, loopShared} {
		cmd, stdin, said := b.start(t, loopEnv+"="+way)
		if line, err := bufio.NewReader(said).ReadString('\n'); err != nil || line != "ready\n" {
			t.Fatalf("a host said %q, %v", line, err)
		}
		stop := time.AfterFunc(length, func() { stdin.Close() })
		defer stop.Stop()
		wg.Go(func() {
			if err := cmd.Wait(); err != nil {
				t.Errorf("a host of the way %q: %v", way, err)
			}
		})
	}
	ended := make(chan struct{})
	go func() { wg.Wait(); close(ended) }()
	rounds := 0
	for working := true; working; rounds++ {
		select {
		case <-ended:
			working = false
		default:
		}
		if done, err := b.Recover(t.Context()); err != nil || len(done) > 0 {
			t.Errorf("Recover beside others: %q, %v", done, err)
		}
		if left, err := b.s.Leaks(b.home); err != nil || len(left) > 0 {
			t.Errorf("leaks beside others: %q, %v", left, err)
		}
	}
	all, err := b.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("looked %d times; %d sandboxes are there in the end", rounds, len(all))
	if len(all) == 0 {
		t.Error("no host has made anything")
	}
	for _, st := range all {
		if st.Damaged != "" {
			t.Errorf("%+v", st)
		}
		if !st.Running && strings.HasPrefix(st.ID, "loop-") {
			t.Errorf("%+v", st)
		}
	}
}
