//go:build linux

package linux

import (
	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/sandbox"
)

// mayRoot says whether a sandbox can have a root: with a single user id there is nobody else to be.
func (d *Driver) mayRoot(op string, spec driver.Spec) error {
	if !spec.Root || !d.rootless {
		return nil
	}
	return &sandbox.Error{Code: driver.CodeUnsupported, Op: op, Message: "a sandbox with a root needs more user ids than the one that an ordinary user has",
		Hint: "give your user a range of them (sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER, with newuidmap installed), or run tongs as root"}
}
