package image

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/tongs-dev/tongs/internal/idmap"
	"github.com/tongs-dev/tongs/sandbox"
)

// beyond says what the kernel means when a file can't be given to an id: the map hasn't got it.
func beyond(op string, ids idmap.Map, err error) error {
	if !errors.Is(err, syscall.EINVAL) || ids.None() {
		return err
	}
	e := &sandbox.Error{Code: sandbox.CodeMachineNotSupported, Op: op, Err: err, Hint: "give your user a longer range: " + idmap.Grant(),
		Message: fmt.Sprintf("a file of the image belongs to a user or group beyond the %d that your range of ids gives a sandbox: %v", ids.IDs(), err)}
	if ids.IDs() >= idmap.Full {
		e.Hint = fmt.Sprintf("no sandbox has more than %d: make the image without such owners", idmap.Full)
	}
	return e
}
