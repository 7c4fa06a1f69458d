package sandbox_test

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
)

// TestLostIsNoEnd holds that whoever reads until io.EOF does not take a lost connection for it.
func TestLostIsNoEnd(t *testing.T) {
	t.Parallel()
	cause := fmt.Errorf("%w: %w", capnweb.ErrDisconnected, io.EOF)
	err := error(&sandbox.Error{Code: sandbox.CodeConnectionLost, Message: "lost", Err: cause})
	if errors.Is(err, io.EOF) {
		t.Error("it matches io.EOF")
	}
	if !errors.Is(err, capnweb.ErrDisconnected) || sandbox.CodeOf(fmt.Errorf("read: %w", err)) != sandbox.CodeConnectionLost {
		t.Errorf("it lost what it is: %v", err)
	}
	if err := (&sandbox.Error{Code: sandbox.CodeInternal, Err: io.EOF}); !errors.Is(err, io.EOF) {
		t.Error("other errors keep their causes")
	}
}
