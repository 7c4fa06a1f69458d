package fleet_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/internal/fleet"
	"github.com/tongs-dev/tongs/sandbox"
)

// TestForkStartsWithTheFilesOfItsSource holds that whoever hears of the new session before the fork knows its id gets
// the copy, not an empty sandbox.
func TestForkStartsWithTheFilesOfItsSource(t *testing.T) {
	t.Parallel()
	m := newMachines()
	f := newFleet(t, m)
	source := session(t, f, "ses_old")
	early := make(chan fleet.Sandbox, 1)
	root, err := f.Fork(t.Context(), "ses_old", func(context.Context) (string, error) {
		go func() {
			s, err := f.Session(t.Context(), "ses_new")
			if err != nil {
				t.Error(err)
			}
			early <- s
		}()
		if s := session(t, f, "ses_old"); s.ID != source.ID { // who has a sandbox does not wait
			t.Errorf("another sandbox: %s", s.ID)
		}
		select {
		case s := <-early:
			t.Errorf("an empty sandbox was made: %s", s.ID)
		case <-time.After(50 * time.Millisecond): // it can't be seen that somebody waits
		}
		return "ses_new", nil
	})
	if err != nil || root != "ses_new" {
		t.Fatal(root, err)
	}
	select {
	case s := <-early:
		if s.ID != session(t, f, "ses_new").ID || s.ID == source.ID {
			t.Errorf("the early one got %s", s.ID)
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		if from := m.boxes[s.ID].from; from != source.ID {
			t.Errorf("it was made from %q", from)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the early one waits for ever")
	}
}

func TestForkThatFails(t *testing.T) {
	t.Parallel()
	m := newMachines()
	f := newFleet(t, m)
	session(t, f, "ses_old")
	refused := errors.New("refused")
	if _, err := f.Fork(t.Context(), "ses_old", func(context.Context) (string, error) { return "", refused }); !errors.Is(err, refused) {
		t.Errorf("%v", err)
	}
	session(t, f, "ses_other") // nobody waits any more
	m.mu.Lock()
	m.fail = sandbox.Errf(sandbox.CodeNoSpace, "create", "full", "")
	m.mu.Unlock()
	root, err := f.Fork(t.Context(), "ses_old", func(context.Context) (string, error) { return "ses_new", nil })
	if root != "ses_new" || sandbox.CodeOf(err) != sandbox.CodeNoSpace {
		t.Errorf("%q %v", root, err)
	}
	s := session(t, f, "ses_new") // tried again, with the files
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.boxes[s.ID].from == "" {
		t.Error("an empty sandbox took the place of a fork")
	}
}

func TestForkWithoutASandbox(t *testing.T) {
	t.Parallel()
	m := newMachines()
	f := newFleet(t, m)
	if root, err := f.Fork(t.Context(), "ses_old", func(context.Context) (string, error) { return "ses_new", nil }); err != nil || root != "ses_new" {
		t.Errorf("%q %v", root, err)
	}
	if creates, _ := m.count(); creates != 0 {
		t.Errorf("%d sandboxes were made", creates)
	}
}
