package image

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/tongs-dev/tongs/internal/idmap"
	"github.com/tongs-dev/tongs/sandbox"
)

func TestBeyond(t *testing.T) {
	t.Parallel()
	of := func(n uint32) idmap.Map {
		ids := []idmap.Extent{{Outside: 100_000, Size: n}}
		return idmap.Map{UIDs: ids, GIDs: ids}
	}
	chown := fmt.Errorf("chown: %w", syscall.EINVAL)
	for _, test := range []struct {
		ids        idmap.Map
		err        error
		code, hint string
	}{
		{of(5000), chown, string(sandbox.CodeMachineNotSupported), "sudo "},
		{of(idmap.Full), chown, string(sandbox.CodeMachineNotSupported), "65536"},
		{of(5000), syscall.ENOSPC, "", ""},
		{idmap.Map{}, chown, "", ""},
		{of(5000), nil, "", ""},
	} {
		err := beyond("unpack", test.ids, test.err)
		if string(sandbox.CodeOf(err)) != test.code || test.code != "" && !strings.Contains(err.Error(), test.hint) {
			t.Errorf("%d ids, %v: %v", test.ids.IDs(), test.err, err)
		}
	}
}

// TestUnreached: what keeps a sandbox's ids out has a cure of its own; other errors stay what they are.
func TestUnreached(t *testing.T) {
	t.Parallel()
	closed := &os.PathError{Op: "lstat", Path: "/home/me/images/new", Err: syscall.EACCES}
	err := unreached("/home/me/images", closed)
	var e *sandbox.Error
	if !errors.As(err, &e) || e.Code != sandbox.CodePermissionDenied || !strings.Contains(e.Hint, "chgrp") || !strings.Contains(e.Hint, "/home/me/images") || !errors.Is(err, closed) {
		t.Errorf("%#v", err)
	}
	for _, other := range []error{nil, syscall.ENOSPC} {
		if got := unreached("/home/me/images", other); !errors.Is(got, other) || errors.As(got, &e) {
			t.Errorf("%v: %v", other, got)
		}
	}
}
