package sandboxtest

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tongs-dev/tongs/sandbox"
)

func testWatch(t *testing.T, h Harness) {
	cases{
		"Events":          watchEvents,
		"NewDirectories":  watchNewDirectories,
		"Patterns":        watchPatterns,
		"OneFile":         watchOneFile,
		"MovedTrees":      watchMovedTrees,
		"SlowReader":      watchSlowReader,
		"KernelOverflow":  watchKernelOverflow,
		"RootGoes":        watchRootGoes,
		"Bounds":          watchBounds,
		"AnyTree":         watchAnyTree,
		"WritesInOneStep": watchWritesInOneStep,
	}.run(t, h)
}

// watcher is a watch of a directory, whose paths are told relative to it.
type watcher struct {
	t *test
	sandbox.FileWatch
	root string
}

func (t *test) watch(dir string, opts sandbox.WatchOptions) *watcher {
	t.Helper()
	st, err := t.box.Stat(t.ctx, dir)
	t.ok(err)
	w, err := t.box.Watch(t.ctx, dir, opts)
	t.ok(err)
	t.Cleanup(func() { w.Close() })
	return &watcher{t, w, st.Path}
}

func (w *watcher) rel(p string) string {
	return strings.TrimPrefix(strings.TrimPrefix(p, strings.TrimSuffix(path.Clean(w.root), "/.")), "/")
}

func (w *watcher) event() sandbox.FileEvent {
	w.t.Helper()
	e, err := w.Next(w.t.ctx)
	if err != nil {
		w.t.Fatalf("no event: %v", err)
	}
	e.Path = w.rel(e.Path)
	if e.From != "" {
		e.From = w.rel(e.From)
	}
	return e
}

// say writes an event in short.
func say(e sandbox.FileEvent) string {
	s := string(e.Type) + " " + e.Path
	if e.Directory {
		s += "/"
	}
	if e.From != "" {
		s += " from " + e.From
	}
	return s
}

// until reads events up to the creation of a file, which is made now.
func (w *watcher) until(sentinel string) (events []sandbox.FileEvent) {
	w.t.Helper()
	w.t.out("touch " + path.Join(w.root, sentinel))
	for {
		e := w.event()
		if e.Path == sentinel {
			return events
		}
		if !strings.HasPrefix(e.Path, "end") { // what remains to be said of the one before
			events = append(events, e)
		}
	}
}

func says(events []sandbox.FileEvent) (all []string) {
	for _, e := range events {
		all = append(all, say(e))
	}
	return all
}

func watchEvents(t *test) {
	t.out("mkdir -p w/d; echo x > w/old")
	w := t.watch("w", sandbox.WatchOptions{Recursive: true})
	t.out("cd w; echo 1 > f; chmod 600 f; mv f g; mv g d/h; rm d/h; mkdir e; rmdir e; mv old ../out; mv ../out back; echo more >> back; ln -s x l")
	got := says(w.until("end"))
	// A change that follows at once may be one with what it follows.
	got = slices.DeleteFunc(got, func(s string) bool { return s == "modify f" })
	want := []string{
		"create f", "attrib f", "move_from f", "move_to g from f", "move_from g", "move_to d/h from g", "delete d/h",
		"create e/", "delete e/", "move_from old", "move_to back", "modify back", "create l",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	a := t.watch("w", sandbox.WatchOptions{})
	t.out("cd w; mv back again; touch d/deep; mkdir d2")
	events := a.until("end2")
	if diff := cmp.Diff([]string{"move_from back", "move_to again from back", "create d2/"}, says(events)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if events[0].Cookie == 0 || events[0].Cookie != events[1].Cookie {
		t.Errorf("the halves of a move don't belong together: %+v", events)
	}
}

// Of files made in directories that were just made none is missed, and none told
// twice.
func watchNewDirectories(t *test) {
	t.out("mkdir w")
	w := t.watch("w", sandbox.WatchOptions{Recursive: true})
	const n = 80
	t.out(fmt.Sprintf("cd w; for i in $(seq %d); do mkdir -p a$i/b/c && : > a$i/b/c/f && : > a$i/g; done", n))
	created := map[string]int{}
	for _, e := range w.until("end") {
		if e.Type == sandbox.FileCreated {
			created[e.Path]++
		} else if e.Type != sandbox.FileChanged && e.Type != sandbox.FileAttrib {
			t.Errorf("%s", say(e))
		}
	}
	for i := 1; i <= n; i++ {
		for _, p := range []string{"", "/b", "/b/c", "/b/c/f", "/g"} {
			if k := created[fmt.Sprintf("a%d%s", i, p)]; k != 1 {
				t.Fatalf("a%d%s was told %d times", i, p, k)
			}
		}
	}
}

func watchPatterns(t *test) {
	t.out("mkdir -p w/node_modules/m w/src")
	w := t.watch("w", sandbox.WatchOptions{Recursive: true, Include: []string{"*.go", "end"}, Exclude: []string{"node_modules", "*_test.go"}})
	t.out("cd w; touch a.go a.js src/b.go src/b_test.go node_modules/m/c.go; mkdir src/new; touch src/new/d.go; mv a.js a2.go; mv a2.go a3.js")
	var got []string
	for _, e := range w.until("end") {
		if e.Type != sandbox.FileAttrib && e.Type != sandbox.FileChanged {
			got = append(got, say(e))
		}
	}
	if diff := cmp.Diff([]string{"create a.go", "create src/b.go", "create src/new/d.go", "move_to a2.go", "move_from a2.go"}, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	for _, o := range []sandbox.WatchOptions{{Include: []string{"["}}, {Exclude: []string{"{"}}, {Include: make([]string, 1000)}, {Exclude: []string{"a\x00"}}} {
		_, err := t.box.Watch(t.ctx, "w", o)
		t.wantCode(err, sandbox.CodeInvalidArgument)
	}
}

func watchOneFile(t *test) {
	t.out("mkdir w; echo 1 > w/f")
	fw, err := t.box.Watch(t.ctx, "w/f", sandbox.WatchOptions{})
	t.ok(err)
	w := &watcher{t, fw, path.Dir(t.write("w/x", "").Path)}
	t.Cleanup(func() { w.Close() })
	t.write("w/f", "replaced")
	t.out("cd w; touch other; echo 2 > tmp; mv tmp f; echo 3 >> f; rm f; rm -r ../w")
	var got []string
	for {
		e, err := w.Next(t.ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		t.ok(err)
		e.Path = w.rel(e.Path)
		got = append(got, say(e))
	}
	if diff := cmp.Diff([]string{"modify f", "move_to f", "modify f", "delete f", "delete f"}, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// What is written beside and put in place is one event.
func watchWritesInOneStep(t *test) {
	t.out("mkdir w; echo 1 > w/f; mkdir -p d/e; touch d/e/x")
	w := t.watch("w", sandbox.WatchOptions{Recursive: true})
	t.write("w/f", "2")
	t.write("w/new", "1")
	_, err := t.box.Edit(t.ctx, "w/f", "2", "3", sandbox.EditOptions{})
	t.ok(err)
	_, err = t.box.Copy(t.ctx, "d", "w/d", sandbox.CopyOptions{})
	t.ok(err)
	want := []string{"modify f", "create new", "modify f", "create d/", "create d/e/", "create d/e/x"}
	if diff := cmp.Diff(want, says(w.until("end"))); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func watchMovedTrees(t *test) {
	t.out("mkdir -p w/a/b/c w/z out/x/y; touch w/a/b/c/f")
	w := t.watch("w", sandbox.WatchOptions{Recursive: true})
	t.out("cd w; mv a/b z/moved; touch z/moved/c/in; mkdir z/moved/c/d")
	got := says(w.until("end1"))
	if diff := cmp.Diff([]string{"move_from a/b/", "move_to z/moved/ from a/b", "create z/moved/c/in", "create z/moved/c/d/"}, noAttrib(got)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	t.out("mv out/x w/x; touch w/x/y/f")
	got = says(w.until("end2"))
	if diff := cmp.Diff([]string{"move_to x/", "create x/y/", "create x/y/f"}, noAttrib(got)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	t.out("mv w/z out/z")
	if got := says(w.until("end3")); !slices.Equal(got, []string{"move_from z/"}) {
		t.Errorf("%q", got)
	}
	// Once nothing more has come for a while, what was moved out is let go: its
	// own end brings no event. Until then its old path may be told.
	t.out("mkdir w/z; touch w/z/again")
	if got := noAttrib(says(w.until("end4"))); !slices.Equal(got, []string{"create z/", "create z/again"}) {
		t.Errorf("%q", got)
	}
}

func noAttrib(all []string) []string {
	return slices.DeleteFunc(all, func(s string) bool { return strings.HasPrefix(s, "attrib ") })
}

// A reader that is too slow is told so; what comes after is whole.
func watchSlowReader(t *test) {
	t.out("mkdir w")
	w := t.watch("w", sandbox.WatchOptions{})
	// The first events fill what is between the guest and here.
	long := strings.Repeat("n", 200)
	t.out(fmt.Sprintf("cd w; for i in $(seq 7000); do echo %s$i; done | xargs touch; ls | xargs rm; touch last", long))
	over := 0
	for e := w.event(); e.Path != "last"; e = w.event() {
		if e.Type == sandbox.FileOverflow {
			if over++; e.Path != "" || e.Reason == "" || !e.Directory {
				t.Errorf("%+v", e)
			}
		}
	}
	if over == 0 {
		t.Error("more than 8,192 events waited for a reader, and none was dropped")
	}
	if in, err := t.box.Info(t.ctx); err != nil || in.MemoryBytes > 64<<20 {
		t.Errorf("the guest takes %d MiB, %v", in.MemoryBytes>>20, err)
	}
	t.out("touch w/after")
	if e := w.event(); say(e) != "attrib last" && say(e) != "modify last" && say(e) != "create after" {
		t.Errorf("%s", say(e))
	}
}

// When the kernel drops events, that is told, and directories made meanwhile are
// watched.
func watchKernelOverflow(t *test) {
	if os.Getenv("TONGS_TEST_LONG") == "" {
		t.Skip("it takes a minute: set TONGS_TEST_LONG=1")
	}
	limit := strings.TrimSpace(t.out("cat /proc/sys/fs/inotify/max_queued_events"))
	if len(limit) > 5 {
		t.Skipf("the kernel queues %s events", limit)
	}
	t.out("mkdir w")
	w := t.watch("w", sandbox.WatchOptions{Recursive: true})
	// Moves of a whole directory make the guest look through a large tree for
	// each, so that the kernel's queue fills meanwhile.
	t.out("cd w; for i in $(seq 60); do mkdir -p d$i/$(seq -s / 20); done; seq 3000 | sed s/^/big/ | xargs mkdir")
	t.out("cd w; for r in 1 2 3 4 5 6 7 8; do for i in $(seq 40); do mv big$i x$i; mv x$i big$i; done; seq 4000 | sed s/^/f/ | xargs touch; seq 4000 | sed s/^/f/ | xargs rm; done; mkdir -p late/dir; touch late/dir/f")
	lost := 0
	for e := w.event(); ; e = w.event() {
		if e.Type == sandbox.FileOverflow {
			lost++
		}
		if e.Path == "late/dir/f" || lost > 0 && e.Path == "late" {
			break
		}
		if lost > 0 && e.Type == sandbox.FileOverflow && t.sh("test -e w/late/dir/f").Exit.Success() {
			break
		}
	}
	t.out("touch w/late/dir/g")
	for e := w.event(); e.Path != "late/dir/g"; e = w.event() {
	}
	t.Logf("events were lost %d times", lost)
}

func watchRootGoes(t *test) {
	for _, how := range []string{"rm -r w", "mv w elsewhere; rm -r elsewhere", "(cd w; rm -r ../w; sleep 0.1)"} {
		t.out("mkdir -p w/d")
		w := t.watch("w", sandbox.WatchOptions{Recursive: true})
		t.out(how)
		last := sandbox.FileEvent{}
		for {
			e, err := w.Next(t.ctx)
			if errors.Is(err, io.EOF) {
				break
			}
			t.ok(err)
			last = e
		}
		if last.Path != w.root || last.Type != sandbox.FileDeleted && last.Type != sandbox.FileMovedFrom {
			t.Errorf("%s: the last event is %s", how, say(last))
		}
	}
}

func watchBounds(t *test) {
	for path, code := range map[string]sandbox.Code{"absent": sandbox.CodeFileNotFound, "": sandbox.CodeInvalidPath, "a\x00": sandbox.CodeInvalidPath} {
		_, err := t.box.Watch(t.ctx, path, sandbox.WatchOptions{})
		t.wantCode(err, code)
	}
	// More than can be at a time, one after the other: a stop releases all of it.
	for range 2 * sandbox.MaxWatches {
		w, err := t.box.Watch(t.ctx, ".", sandbox.WatchOptions{Recursive: true})
		if sandbox.CodeOf(err) == sandbox.CodeTooManyWatches {
			t.eventually("release of a closed watch", func() bool {
				w, err = t.box.Watch(t.ctx, ".", sandbox.WatchOptions{Recursive: true})
				return err == nil
			})
		}
		t.ok(err)
		t.ok(w.Close())
	}
	var all []sandbox.FileWatch
	defer func() {
		for _, w := range all {
			w.Close()
		}
	}()
	for {
		w, err := t.box.Watch(t.ctx, ".", sandbox.WatchOptions{})
		if err != nil {
			t.wantCode(err, sandbox.CodeTooManyWatches)
			break
		}
		if all = append(all, w); len(all) > sandbox.MaxWatches {
			t.Fatal("there is no bound")
		}
	}
	t.answers()
}

// Whatever is done to a tree, the events lead from the tree as it was to the tree
// as it is.
func watchAnyTree(t *test) {
	rounds := 4
	if os.Getenv("TONGS_TEST_LONG") != "" {
		rounds = 300
	}
	for round := range rounds {
		seed := rand.Uint64()
		r := rand.New(rand.NewPCG(seed, 1))
		dir := fmt.Sprint("w", round)
		t.out("mkdir -p " + dir + "/a/b " + dir + "/c outside" + dir + "; touch " + dir + "/a/b/f")
		w := t.watch(dir, sandbox.WatchOptions{Recursive: true})
		var script strings.Builder
		fmt.Fprintf(&script, "cd %s\n", dir)
		place := func() string {
			parts := []string{}
			for range 1 + r.IntN(3) {
				parts = append(parts, string(rune('a'+r.IntN(3))))
			}
			return strings.Join(parts, "/")
		}
		for range 150 {
			switch p := place(); r.IntN(8) {
			case 0, 1:
				fmt.Fprintf(&script, "mkdir -p %s\n", p)
			case 2:
				fmt.Fprintf(&script, "mkdir -p %s/x/y; : > %s/x/y/f%d\n", p, p, r.IntN(3))
			case 3:
				fmt.Fprintf(&script, "rm -rf %s\n", p)
			case 4, 5:
				fmt.Fprintf(&script, "mv -T %s %s\n", p, place())
			case 6:
				fmt.Fprintf(&script, "mv %s ../outside%s/o%d\n", p, dir, r.IntN(3))
			case 7:
				fmt.Fprintf(&script, "mv -T ../outside%s/o%d %s\n", dir, r.IntN(3), p)
			}
		}
		t.sh(script.String() + "true 2>/dev/null")
		have := map[string]bool{"a": true, "a/b": true, "a/b/f": true, "c": true}
		drop := func(p string) {
			for q := range have {
				if q == p || strings.HasPrefix(q, p+"/") {
					delete(have, q)
				}
			}
		}
		moving := map[uint32]map[string]bool{}
		events := w.until("end")
		for _, e := range events {
			switch e.Type {
			case sandbox.FileCreated:
				have[e.Path] = true
			case sandbox.FileDeleted:
				drop(e.Path)
			case sandbox.FileMovedFrom:
				subtree := map[string]bool{}
				for q := range have {
					if q == e.Path || strings.HasPrefix(q, e.Path+"/") {
						subtree[q[len(e.Path):]] = true
					}
				}
				moving[e.Cookie] = subtree
				drop(e.Path)
			case sandbox.FileMovedTo:
				drop(e.Path)
				have[e.Path] = true
				if e.From != "" {
					for q := range moving[e.Cookie] {
						have[e.Path+q] = true
					}
				}
			case sandbox.FileOverflow:
				t.Errorf("an overflow: %+v", e)
			}
		}
		got := make([]string, 0, len(have)) // not nil, like what an empty tree gives
		for p := range have {
			got = append(got, p)
		}
		slices.Sort(got)
		want := strings.Fields(t.out("cd " + dir + "; find . -mindepth 1 ! -name end -printf '%P\\n'"))
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("seed %d: the tree (-) and what the events say (+)\n%s\n%s\n%s", seed, diff, script.String(), strings.Join(says(events), "\n"))
		}
		w.Close()
	}
}
