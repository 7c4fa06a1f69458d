package image

import (
	"fmt"
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
