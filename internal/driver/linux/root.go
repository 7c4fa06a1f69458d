//go:build linux

package linux

import (
	"errors"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/idmap"
	"github.com/tongs-dev/tongs/sandbox"
)

// mayRoot says whether a sandbox can have a root: with a single user id there is nobody else to be.
func (d *Driver) mayRoot(op string, spec driver.Spec) error {
	if !spec.Root || !d.rootless || !spec.Image.Map.None() {
		return nil
	}
	e := &sandbox.Error{Code: driver.CodeUnsupported, Op: op, Message: "a sandbox with a root needs more user ids than the one that an ordinary user has",
		Hint: "make the image again: it is older than your range of ids; or run tongs as root"}
	var lack *sandbox.Error
	if _, err := idmap.Find(); errors.As(err, &lack) {
		e.Message += ": " + lack.Message
		e.Hint = lack.Hint + "; or run tongs as root"
	}
	return e
}
