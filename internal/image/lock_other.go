//go:build !linux

package image

import (
	"context"
	"os"

	"github.com/tongs-dev/tongs/sandbox"
)

const shared, exclusive = 1, 2

func notHere(op string) error {
	return sandbox.Errf(sandbox.CodeMachineNotSupported, op, "images can only be kept on Linux", "run tongs on Linux")
}

func lockFile(_ context.Context, op, _ string, _ int) (*os.File, error) { return nil, notHere(op) }

func waitLock(_ context.Context, op string, _ *os.File, _ int) error { return notHere(op) }

func tryLock(*os.File, int) (bool, error) { return false, notHere("lock") }

func syncTree(*os.File) error { return notHere("sync") }
