package drivertest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tongs-dev/tongs/sandbox"
)

// escape is one attempt to reach from inside a sandbox what isn't the sandbox's. It is a script, which succeeds where
// the thing is possible, or a function, which then gives nil. It must fail in the sandbox, as its user and as its root,
// and its control must succeed, so that it can't fail for being wrong.
type escape struct {
	name    string
	attempt string
	// says is what the attempt must print when it is refused, a regular expression, on the host's kernel. Empty: anything.
	says string
	try  func(p *prison) error // instead of attempt

	// control is a script that must succeed; empty, the attempt itself. prove is one as a function.
	control string
	prove   func(p *prison) error
	where   place // of the control

	as      string // "user", "root"; empty: both
	root    bool   // the control needs root on the host; without, the attempt is made all the same
	made    bool   // the attempt needs what root on the host has made
	kernel  bool   // the control fails where this machine hasn't got the thing at all; then there is nothing to show
	shared  bool   // is about the host's kernel, which a sandbox on a kernel of its own doesn't see
	foreign bool   // makes sense only where the user doesn't own the sandbox's whole tree
	fence   bool   // is what a second fence holds
	plain   bool   // holds in sandboxes without a root only
	limits  bool   // needs limits of what commands take
	network bool   // is tried again in a sandbox that has a way out
}

// place is where a control runs.
type place int

const (
	inside  place = iota // in the same sandbox, as the same user
	onHost               // on the host, as whoever runs the tests
	next                 // in the sandbox that the attempt is about
	nothing              // there is none: another row's control shows the same; the comment says which
)

// table is all of them.
func table() []escape {
	return slices.Concat(fileEscapes, kernelEscapes, callEscapes, processEscapes, networkEscapes, limitEscapes)
}

// passes are the sandboxes in which the table is tried, and as whom.
var passes = []struct {
	name, user string
	rooted     bool
	egress     bool
}{
	{name: "user"},
	{name: "root", user: "root", rooted: true},
	{name: "user beside root", rooted: true},
	{name: "user with a way out", egress: true},
}

func testEscapes(t *testing.T, s Suite) {
	w := newWorld(t, s)
	for name := range s.Harmless {
		if name := strings.TrimPrefix(name, "root: "); !slices.ContainsFunc(table(), func(e escape) bool { return e.name == name }) {
			t.Errorf("Suite.Harmless names %q, which is no row", name)
		}
	}
	for _, pass := range passes {
		t.Run(pass.name, func(t *testing.T) {
			if reason := s.noRoot(); pass.rooted && reason != "" {
				t.Skip(reason)
			}
			if s.Brief && pass.rooted && pass.user == "" && os.Getenv("TONGS_TEST_LONG") == "" {
				t.Skip("takes long; TONGS_TEST_LONG=1 runs it")
			}
			t.Parallel()
			p := w.prison(t, pass.user, pass.rooted, pass.egress)
			refused, bare, skipped, all := 0, 0, map[string]int{}, 0
			for _, e := range table() {
				if pass.egress && !e.network || e.as == "root" && pass.user != "root" || e.as == "user" && pass.user == "root" {
					continue
				}
				all++
				t.Run(e.name, func(t *testing.T) {
					in := *p
					in.t = t
					reason := e.skip(s, pass.user, pass.rooted)
					if reason == "" {
						reason = e.run(&in)
					}
					if reason != "" {
						skipped[reason]++
						t.Skip(reason)
					}
					if !t.Failed() {
						refused++
						if e.root && os.Geteuid() != 0 {
							bare++
						}
					}
				})
			}
			if got := outputAs(t, p.c, pass.user, "echo alive"); got != "alive" {
				t.Errorf("after all attempts: %q", got)
			}
			left := 0
			for _, n := range skipped {
				left += n
			}
			t.Logf("%d rows as %s: %d refused (%d without a control, which needs root), %d skipped, %d possible", all, pass.name, refused, bare, left, all-refused-left)
			for reason, n := range skipped {
				t.Logf("%d skipped: %s", n, reason)
			}
		})
	}
}

// skip gives the reason why a row shows nothing here, or "".
func (e escape) skip(s Suite, user string, rooted bool) string {
	switch {
	case s.Harmless[e.name] != "":
		return s.Harmless[e.name]
	case user == "root" && s.Harmless["root: "+e.name] != "":
		return s.Harmless["root: "+e.name]
	case e.shared && s.OwnKernel:
		return "the sandbox has a kernel of its own"
	case e.plain && rooted:
		return "a sandbox that has a root doesn't hold it"
	case e.foreign && s.OneUser():
		return "the sandbox's user owns its whole tree"
	case e.fence && s.noFence() != "":
		return s.noFence()
	case e.limits && s.NoLimits() != "":
		return s.NoLimits()
	case e.made && os.Geteuid() != 0:
		return "it needs root on the host"
	}
	return ""
}

// run shows that the control succeeds and the attempt doesn't. It gives a reason to skip the row, or "".
func (e escape) run(p *prison) string {
	t := p.t
	err := e.checkControl(p)
	switch {
	case err != nil && e.kernel:
		return "not on this machine"
	case err != nil:
		t.Fatalf("the control fails, so this row shows nothing: %v", err)
	}
	if e.try != nil {
		if err := e.try(p); err == nil {
			t.Error("possible")
		} else {
			t.Log("refused: ", err)
		}
		return ""
	}
	script := p.fill(e.attempt)
	res := bashAs(t, p.c, p.user, "("+script+") 2>&1")
	if res.Exit.TimedOut {
		t.Errorf("not refused in time: %s\n%s", script, res.Stdout)
	} else if res.Exit.Success() {
		t.Errorf("possible: %s\n%s", script, res.Stdout)
	} else if e.says != "" && !p.s.OwnKernel && !regexp.MustCompile(e.says).Match(res.Stdout) {
		t.Errorf("refused for another reason: %s\n%+v %s\nwant %s", script, res.Exit, res.Stdout, e.says)
	}
	return ""
}

func (e escape) checkControl(p *prison) error {
	if e.root && os.Geteuid() != 0 {
		return nil // shown where the same table is tried by root
	}
	if e.prove != nil {
		return e.prove(p)
	}
	script := e.control
	if script == "" {
		script = e.attempt
	}
	script = p.fill(script)
	switch e.where {
	case nothing:
		return nil
	case inside, next:
		c, user := p.c, p.user
		if e.where == next {
			c, user = p.neighbour, ""
		}
		if res := bashAs(p.t, c, user, script); !res.Exit.Success() {
			return fmt.Errorf("in a sandbox: %s: %+v %s%s", script, res.Exit, res.Stdout, res.Stderr)
		}
		return nil
	}
	return p.controls.once(script, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, "bash", "-c", script)
		cmd.Dir = p.scratch
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("on the host: %s: %w: %s", script, err, out)
		}
		return nil
	})
}

// controls on the host are run once, and not side by side.
type controls struct {
	mu   sync.Mutex
	done map[string]error
}

func (c *controls) once(script string, run func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err, ok := c.done[script]
	if !ok {
		err = run()
		c.done[script] = err
	}
	return err
}

// refusedBy gives an attempt's error, or nil where it was possible.
func refusedBy(res *sandbox.ExecResult, err error) error {
	if err != nil {
		return err
	}
	if res.Exit.Success() {
		return nil
	}
	return errors.New(strings.TrimSpace(string(res.Stderr)))
}
