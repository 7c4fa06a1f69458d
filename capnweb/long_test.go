package capnweb_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
)

// TestLongMessagesFailAlone sends what is longer than a session takes, as the last text of a message, in both
// directions: no more than the one call fails.
func TestLongMessagesFailAlone(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	limits := capnweb.WithLimits(capnweb.Limits{MaxMessageBytes: 1 << 20, MaxQueuedBytes: 1 << 20})
	here, there := capnweb.Pipe()
	served := capnweb.NewSession(there, capnweb.NewTarget(capnweb.Methods{
		"length": func(text string) (int, error) { return len(text), nil },
		"give":   func(n int) (string, error) { return strings.Repeat("x", n), nil },
		"fail":   func(n int) error { return errors.New(strings.Repeat("x", n)) },
	}), limits)
	defer served.Close(nil)
	session := capnweb.NewSession(here, nil, limits)
	defer session.Close(nil)
	main := session.Main()
	defer main.Close()
	for _, size := range []int{2 << 20, 5 << 20} {
		if _, err := capnweb.Call[int](ctx, main, "length", strings.Repeat("x", size)); err == nil || !strings.Contains(err.Error(), "larger than") {
			t.Errorf("an argument of %d bytes: %v", size, err)
		}
		if _, err := capnweb.Call[string](ctx, main, "give", size); err == nil || !strings.Contains(err.Error(), "larger than") {
			t.Errorf("a result of %d bytes: %.100v", size, err)
		}
		if _, err := capnweb.Call[capnweb.Value](ctx, main, "fail", size); err == nil || !strings.Contains(err.Error(), "larger than") {
			t.Errorf("an error of %d bytes: %.100v", size, err)
		}
		if n, err := capnweb.Call[int](ctx, main, "length", "short"); n != 5 || err != nil {
			t.Fatalf("afterwards: %d, %v", n, err)
		}
	}
}
