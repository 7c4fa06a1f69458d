package fleet_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/fleet"
	"github.com/tongs-dev/tongs/sandbox"
)

func TestCatalog(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	m := newMachines()
	f := newFleetWith(t, m, fleet.Config{Reserved: []string{"agent-host"}, MaxNamed: 5})
	if _, err := f.Named(ctx, "agent-host", driver.Spec{}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Session(ctx, "ses_Abc1"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"web", "web-2", "database"} {
		if _, err := f.Create(ctx, fleet.CreateOptions{Name: name, Labels: map[string]string{"of": name}}); err != nil {
			t.Fatal(err)
		}
	}
	all, err := f.Catalog(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want := []fleet.Entry{
		{Session: "ses_Abc1", State: fleet.Running, Image: "host"},
		{Name: "web", State: fleet.Running, Image: "host", Labels: map[string]string{"of": "web"}},
		{Name: "web-2", State: fleet.Running, Image: "host", Labels: map[string]string{"of": "web-2"}},
		{Name: "database", State: fleet.Running, Image: "host", Labels: map[string]string{"of": "database"}},
	}
	if diff := cmp.Diff(want, all, cmpopts.IgnoreUnexported(fleet.Entry{}), cmpopts.IgnoreFields(fleet.Entry{}, "ID", "Created")); diff != "" {
		t.Error(diff)
	}

	if root, err := f.Create(ctx, fleet.CreateOptions{Name: "x-root", Root: true}); err != nil || !m.boxes[root.ID].root || m.boxes[all[1].ID].root {
		t.Errorf("a root is given to those who ask for it, and to no other: %v", err)
	} else if err := f.Remove(ctx, root); err != nil {
		t.Error(err)
	}
	for _, test := range []struct{ ref, found, code, text string }{
		{ref: "web", found: "web"},
		{ref: "web-", found: "web-2"},
		{ref: "data", found: "database"},
		{ref: "ses_Abc1", found: "ses_Abc1"},
		{ref: "ses", found: "ses_Abc1"},
		{ref: all[3].ID, found: "database"},
		{ref: "we", code: "AMBIGUOUS_NAME", text: "web, web-2"},
		{ref: "databse", code: "SANDBOX_NOT_FOUND", text: "did you mean database?"},
		{ref: "agent-host", code: "SANDBOX_NOT_FOUND"},
		{ref: "", code: "VALIDATION_FAILED"},
		{ref: strings.Repeat("\x00", 5000), code: "SANDBOX_NOT_FOUND"},
	} {
		e, err := f.Lookup(test.ref)
		if string(sandbox.CodeOf(err)) != test.code || err == nil && e.String() != test.found || err != nil && !strings.Contains(err.Error(), test.text) {
			t.Errorf("%.40q: %v, %v", test.ref, e, err)
		}
	}

	web, err := f.Lookup("web")
	if err != nil {
		t.Fatal(err)
	}
	if s, err := f.Open(ctx, web); err != nil || s.ID != web.ID {
		t.Errorf("open: %v %v", s.ID, err)
	}
	if _, err := f.Create(ctx, fleet.CreateOptions{Name: "web"}); sandbox.CodeOf(err) != sandbox.CodeAlreadyExists {
		t.Errorf("a second of a name: %v", err)
	}
	if _, err := f.Create(ctx, fleet.CreateOptions{Name: "agent-host"}); sandbox.CodeOf(err) != sandbox.CodeAlreadyExists {
		t.Errorf("a reserved name: %v", err)
	}
	if err := f.Remove(ctx, web); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Open(ctx, web); sandbox.CodeOf(err) != sandbox.CodeSandboxNotFound {
		t.Errorf("open what was removed: %v", err)
	}
	if err := f.Remove(ctx, web); sandbox.CodeOf(err) != sandbox.CodeSandboxNotFound {
		t.Errorf("remove again: %v", err)
	}
	again, err := f.Create(ctx, fleet.CreateOptions{Name: "web"})
	if err != nil || again.ID == web.ID {
		t.Errorf("the name again: %v %v", again, err)
	}
	if _, err := f.Create(ctx, fleet.CreateOptions{}); err != nil {
		t.Errorf("without a name: %v", err)
	}
	if _, err := f.Create(ctx, fleet.CreateOptions{}); sandbox.CodeOf(err) != fleet.CodeTooManySandboxes {
		t.Errorf("one too many: %v", err)
	}
}

func TestCreateRefuses(t *testing.T) {
	t.Parallel()
	m := newMachines()
	f := newFleetWith(t, m, fleet.Config{})
	long := map[string]string{}
	for i := range fleet.MaxLabels + 1 {
		long[fmt.Sprint(i)] = ""
	}
	for name, opts := range map[string]fleet.CreateOptions{
		"upper case":       {Name: "Web"},
		"a dash first":     {Name: "-web"},
		"a path":           {Name: "../web"},
		"too long":         {Name: strings.Repeat("a", 41)},
		"NUL":              {Name: "a\x00b"},
		"our own label":    {Name: "a", Labels: map[string]string{"tongs.session": "ses_1"}},
		"many labels":      {Name: "a", Labels: long},
		"a long label":     {Name: "a", Labels: map[string]string{"k": strings.Repeat("x", 300)}},
		"no environment":   {Name: "a", Env: []string{"novalue"}},
		"too small to run": {Name: "a", Limits: driver.Limits{MemoryBytes: 1}},
	} {
		if _, err := f.Create(t.Context(), opts); sandbox.CodeOf(err) != sandbox.CodeInvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	if m.creates != 0 {
		t.Errorf("%d were made all the same", m.creates)
	}
}

// TestCreateTakesBack holds that a sandbox whose maker gave up, or whose making failed, is not left.
func TestCreateTakesBack(t *testing.T) {
	t.Parallel()
	m := newMachines()
	f := newFleetWith(t, m, fleet.Config{})
	m.fail = sandbox.Errf(sandbox.CodeNoSpace, "create", "full", "")
	if _, err := f.Create(t.Context(), fleet.CreateOptions{Name: "a"}); sandbox.CodeOf(err) != sandbox.CodeNoSpace {
		t.Errorf("a failure: %v", err)
	}
	if _, err := f.Lookup("a"); sandbox.CodeOf(err) != sandbox.CodeSandboxNotFound {
		t.Errorf("what failed is there: %v", err)
	}

	m.gate = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Create(ctx, fleet.CreateOptions{Name: "b"}); err == nil {
		t.Error("no error for a maker who gave up")
	}
	close(m.gate)
	f.Close() // waits for what is taken back
	if all, err := m.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("left: %v %v", all, err)
	}
}
