package drivertest

import (
	"context"
	"strings"
	"testing"

	"github.com/tongs-dev/tongs/sandbox"
)

func needLimits(t *testing.T, s Suite) {
	t.Helper()
	if reason := s.NoLimits(); reason != "" {
		t.Skip(reason)
	}
}

func testPids(t *testing.T, s Suite) {
	needLimits(t, s)
	b := newBed(t, s)
	spec := b.spec("bomb")
	spec.Limits.Pids = 64
	b.create(t, spec)
	c := b.connect(t, "bomb")
	// The control: some processes are allowed.
	if got := output(t, c, "for i in $(seq 20); do sleep 30 & done; jobs -p | wc -l; kill $(jobs -p); wait 2>/dev/null; true"); got != "20" {
		t.Errorf("20 processes under a limit of 64: %q", got)
	}
	// Not bash: that one tries for half a minute before it believes that it can't fork.
	res := bash(t, c, "exec sh -c 'i=0; while test $i -lt 200; do sleep 30 & i=$((i+1)); done'")
	if res.Exit.Success() || !strings.Contains(string(res.Stderr), "fork") {
		t.Errorf("200 processes under a limit of 64: %+v\n%s%s", res.Exit, res.Stdout, res.Stderr)
	}
	// They are still there, and yet there is room.
	if got := output(t, c, "echo fine | cat | cat"); got != "fine" {
		t.Errorf("after too many processes: %q", got)
	}
	if s.OwnKernel {
		testStorm(t, b, "bomb", c)
		return
	}
	// One that goes on for ever.
	bash(t, c, "f() { f | f & }; f; sleep 1")
	if got := output(t, c, "echo fine | cat | cat"); got != "fine" {
		t.Errorf("right after a fork bomb: %q", got)
	}
	// One whose processes leave each other's groups, beside what goes on running.
	service, err := c.Start(t.Context(), sandbox.ProcessSpec{Argv: []string{"sleep", "1000"}, Mode: sandbox.Follow})
	if err != nil {
		t.Fatal(err)
	}
	bash(t, c, `printf 'setsid sh ./bomb &\nsetsid sh ./bomb &\nsetsid sh ./bomb\n' > bomb; sh ./bomb & sleep 1`)
	if got := output(t, c, "echo fine"); got != "fine" {
		t.Errorf("after a fork bomb of many sessions: %q", got)
	}
	if in, err := c.Get(t.Context(), service.ID); err != nil || !in.Running {
		t.Errorf("what ran beside a fork bomb: %+v, %v", in, err)
	}
	bash(t, c, "exec sh -c 'f() { f | f & }; f'")
	if err := b.Stop(t.Context(), "bomb"); err != nil {
		t.Fatal(err)
	}
	if err := b.Start(t.Context(), "bomb"); err != nil {
		t.Fatal(err)
	}
	if got := output(t, b.connect(t, "bomb"), "echo fine"); got != "fine" {
		t.Errorf("after a fork bomb: %q", got)
	}
}

func testMemory(t *testing.T, s Suite) {
	needLimits(t, s)
	b := newBed(t, s)
	spec := b.spec("hog")
	spec.Limits.MemoryBytes = 64 << 20
	b.create(t, spec)
	c := b.connect(t, "hog")
	first := b.status(t, "hog").PID
	// tail keeps all of a line in memory.
	const hog = "head -c %s /dev/zero | tail | wc -c"
	if got := output(t, c, strings.Replace(hog, "%s", "16M", 1)); got != "16777216" {
		t.Errorf("16 MiB under a limit of 64: %q", got)
	}
	if s.OwnKernel {
		testHogEnds(t, b, "hog", c, strings.Replace(hog, "%s", "256M", 1))
		return
	}
	if got := output(t, c, strings.Replace(hog, "%s", "256M", 1)+"; echo ${PIPESTATUS[1]}"); !strings.HasSuffix(got, "\n137") {
		t.Errorf("256 MiB under a limit of 64: %q", got)
	}
	// What is in /tmp goes by killing nobody, so the kernel kills all that it may.
	for range 5 {
		if res := bash(t, c, "head -c 256M /dev/zero > /tmp/big"); res.Exit.Success() {
			t.Errorf("256 MiB in /tmp under a limit of 64: %+v", res.Exit)
		}
	}
	if err := c.RemoveFile(t.Context(), "/tmp/big", false); err != nil {
		t.Error(err)
	}
	if st := b.status(t, "hog"); st.PID != first {
		t.Errorf("the guest was killed: it was process %d, now %+v", first, st)
	}
	if got := output(t, c, "echo fine"); got != "fine" {
		t.Errorf("after a hog: %q", got)
	}
}

// testStorm makes processes without end in a sandbox on a kernel of its own: it goes on or ends, and in either
// case it can be used again.
func testStorm(t *testing.T, b *bed, id string, c *sandbox.Client) {
	output(t, c, "echo kept >file; sync")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	storm := sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"bash", "-c", "f() { f | f & }; f; sleep 1"}, Timeout: patience / 2}}
	if _, err := c.Exec(ctx, storm); err != nil && sandbox.CodeOf(err) != sandbox.CodeConnectionLost {
		t.Fatal(err)
	}
	must(t, b.Stop(t.Context(), id))
	must(t, b.Start(t.Context(), id))
	if got := output(t, b.connect(t, id), "cat file; echo fine | cat"); got != "kept\nfine" {
		t.Errorf("after a fork bomb: %q", got)
	}
}

// testHogEnds takes more memory than there may be in a sandbox on a kernel of its own: it ends, and can be
// started again.
func testHogEnds(t *testing.T, b *bed, id string, c *sandbox.Client, hog string) {
	output(t, c, "echo kept >file; sync")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := c.Exec(ctx, sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"bash", "-c", hog}}})
	wantCode(t, err, sandbox.CodeConnectionLost)
	must(t, b.Start(t.Context(), id))
	if got := output(t, b.connect(t, id), "cat file"); got != "kept" {
		t.Errorf("after a hog: %q", got)
	}
}

func testTmp(t *testing.T, s Suite) {
	b := newBed(t, s)
	spec := b.spec("tmp")
	spec.Limits.TmpBytes = 4 << 20
	b.create(t, spec)
	c := b.connect(t, "tmp")
	if got := output(t, c, "head -c 1M /dev/zero > /tmp/a && head -c 8M /dev/zero > /tmp/b 2>/dev/null || echo full"); got != "full" {
		t.Errorf("8 MiB in a /tmp of 4: %q", got)
	}
	// Empty files take memory of the kernel: there is a bound of them as well.
	for dir, files := range map[string]string{"/tmp": "1024", "/dev/shm": "16384"} {
		if got := output(t, c, "mkdir "+dir+"/many && cd "+dir+"/many && seq 100 | xargs touch && seq 20000 | xargs touch 2>/dev/null && echo all; test $(ls | wc -l) -gt 500 -a $(ls | wc -l) -le "+files+" && echo full; rm -r ../many"); got != "full" {
			t.Errorf("20,000 files in %s: %q", dir, got)
		}
	}
	if got := output(t, c, "touch /tmp/again /dev/shm/again; echo fine"); got != "fine" {
		t.Errorf("after too many files: %q", got)
	}
}
