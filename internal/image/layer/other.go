//go:build !linux

package layer

import (
	"context"
	"io"
	"io/fs"

	"github.com/tongs-dev/tongs/sandbox"
)

// Unpack needs what only Linux has.
func Unpack(context.Context, string, io.Reader, Options) (Result, error) {
	return Result{}, sandbox.Errf(sandbox.CodeMachineNotSupported, "unpack layer", "layers of images can only be made on Linux", "run tongs on Linux")
}

// Whiteout says whether a file of a layer says that its name is gone. No layer is made here.
func Whiteout(fs.FileInfo) bool { return false }

func isOpaque(int) bool { return false }
