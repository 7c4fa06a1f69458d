//go:build linux

package project_test

import (
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/project"
	"github.com/tongs-dev/tongs/sandbox"
)

// many makes a repository of 20,000 files of 0.5 to 6 KiB.
func (r *rig) many() {
	random := rand.New(rand.NewSource(1))
	for i := range 20_000 {
		write(r.t, r.dir, fmt.Sprintf("src/m%d/p%d/f%d.go", i%20, i%200, i), "package x\n"+strings.Repeat(fmt.Sprintln(random.Int63()), 25+random.Intn(275)))
	}
	r.commit()
	git(r.t, r.dir, "gc", "-q")
}

// BenchmarkFirstCommand is the time until a command has run in a new sandbox: without a project, with one that is known,
// one of which a file changed, and one that is new; and what copying it with cp takes.
func BenchmarkFirstCommand(b *testing.B) {
	m := newMachine(b)
	m.many()
	n := 0
	run := func(b *testing.B, lower []string) {
		n++
		spec := driver.Spec{ID: fmt.Sprint("b", n), Image: m.image}
		spec.Image.Lower = append(lower, m.image.Lower...)
		if err := m.driver.Create(b.Context(), spec); err != nil {
			b.Fatal(err)
		}
		c := m.connect(spec.ID)
		if _, err := c.Exec(b.Context(), sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"ls"}}}); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		c.Close()
		if err := m.driver.Destroy(b.Context(), spec.ID); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	take := func(b *testing.B) []string {
		l, err := m.store.Take(b.Context(), project.Options{Dir: m.dir, Map: m.image.Map})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(l.Close)
		return []string{l.Root()}
	}
	b.Run("none", func(b *testing.B) {
		for range b.N {
			run(b, nil)
		}
	})
	b.Run("new", func(b *testing.B) {
		for range b.N {
			b.StopTimer()
			if err := os.RemoveAll(filepath.Join(m.home, "projects")); err != nil {
				b.Fatal(err)
			}
			unix.Sync() // what was removed is not what is measured
			b.StartTimer()
			run(b, take(b))
		}
	})
	b.Run("known", func(b *testing.B) {
		take(b)
		b.ResetTimer()
		for range b.N {
			run(b, take(b))
		}
	})
	b.Run("changed", func(b *testing.B) {
		take(b)
		b.ResetTimer()
		for i := range b.N {
			write(m.t, m.dir, "src/m0/p0/f0.go", fmt.Sprint("package x // ", i))
			run(b, take(b))
		}
	})
	b.Run("cp", func(b *testing.B) {
		for range b.N {
			to := filepath.Join(m.home, "copy")
			if out, err := exec.Command("cp", "-a", m.dir, to).CombinedOutput(); err != nil {
				b.Fatalf("%v: %s", err, out)
			}
			b.StopTimer()
			if err := os.RemoveAll(to); err != nil {
				b.Fatal(err)
			}
			unix.Sync()
			b.StartTimer()
		}
	})
}
