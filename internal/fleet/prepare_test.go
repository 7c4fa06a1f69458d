package fleet_test

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/fleet"
)

// TestPrepare: what completes a recipe is asked for each new session's sandbox, is let go in any case, and its label
// is on forks and known to the next host.
func TestPrepare(t *testing.T) {
	t.Parallel()
	m := newMachines()
	var asked, held atomic.Int32
	broken := errors.New("the project is gone")
	var fail atomic.Bool
	prepare := func(_ context.Context, spec *driver.Spec) (func(), error) {
		asked.Add(1)
		if fail.Load() {
			return nil, broken
		}
		held.Add(1)
		spec.Labels[fleet.LabelProject] = "p1"
		return func() { held.Add(-1) }, nil
	}
	recipe := driver.Spec{Labels: map[string]string{"x": "y"}}
	f := fleet.New(fleet.Config{Driver: m, Recipe: recipe, Logger: slog.New(slog.DiscardHandler), Prepare: prepare})
	fail.Store(true)
	if _, err := f.Session(t.Context(), "ses_a"); !errors.Is(err, broken) {
		t.Errorf("the error is %v", err)
	}
	fail.Store(false)
	m.fail = errors.New("no space")
	if _, err := f.Session(t.Context(), "ses_a"); err == nil {
		t.Error("it was made")
	}
	session(t, f, "ses_a")
	session(t, f, "ses_a")
	if asked.Load() != 3 || held.Load() != 0 {
		t.Errorf("asked %d times, %d are held", asked.Load(), held.Load())
	}
	if recipe.Labels[fleet.LabelProject] != "" {
		t.Error("the recipe of all has one session's label")
	}
	if _, err := f.Fork(t.Context(), "ses_a", func(context.Context) (string, error) { return "ses_b", nil }); err != nil {
		t.Fatal(err)
	}
	// Named ones have it only if they ask.
	plain, err := f.Create(t.Context(), fleet.CreateOptions{Name: "plain"})
	if err != nil || plain.Project != "" {
		t.Errorf("%+v, %v", plain, err)
	}
	with, err := f.Create(t.Context(), fleet.CreateOptions{Name: "with", Prepare: prepare})
	if err != nil || with.Project != "p1" {
		t.Errorf("%+v, %v", with, err)
	}
	if _, err := f.Named(t.Context(), "agent-host", driver.Spec{}); err != nil {
		t.Fatal(err)
	}
	if asked.Load() != 4 {
		t.Errorf("asked %d times", asked.Load())
	}
	f.Close()

	f = fleet.New(fleet.Config{Driver: m, Logger: slog.New(slog.DiscardHandler)})
	defer f.Close()
	if _, err := f.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Fork(t.Context(), "ses_a", func(context.Context) (string, error) { return "ses_c", nil }); err != nil {
		t.Fatal(err)
	}
	all, err := f.Catalog(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, e := range all {
		got[e.String()] = e.Project
	}
	for name, want := range map[string]string{"ses_a": "p1", "ses_b": "p1", "ses_c": "p1", "plain": "", "with": "p1", "agent-host": ""} {
		if p, ok := got[name]; !ok || p != want {
			t.Errorf("%s has the project %q (%v), want %q", name, p, ok, want)
		}
	}
}
