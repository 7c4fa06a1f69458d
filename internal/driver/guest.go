package driver

import (
	"bytes"
	"io"
	"os"
	"path/filepath"

	"github.com/tongs-dev/tongs/sandbox"
)

// GuestEnv names the environment variable that points to a guest binary to use instead of the one
// beside the running executable. It is meant for development.
const GuestEnv = "TONGS_GUEST"

const guestName = "tongs-guest"

// Guest is the static binary that runs as the first process of a sandbox.
type Guest struct {
	Path string // where it is; "" when it is inside this executable
	data []byte
}

// Open gives the binary's bytes.
func (g Guest) Open() (io.ReadCloser, error) {
	if g.Path == "" {
		return io.NopCloser(bytes.NewReader(g.data)), nil
	}
	f, err := os.Open(g.Path)
	if err != nil {
		return nil, Wrap("open guest binary", err)
	}
	return f, nil
}

// GuestBinary finds the guest binary: named by TONGS_GUEST, else inside this executable (when built
// with the tag embedguest), else beside it, under the name tongs-guest.
func GuestBinary() (Guest, error) {
	const op = "find guest binary"
	if p := os.Getenv(GuestEnv); p != "" {
		if err := regular(p); err != nil {
			return Guest{}, &sandbox.Error{Code: sandbox.CodeFileNotFound, Op: op, Message: GuestEnv + " names " + p + ": " + err.Error(),
				Hint: "build it with `go build ./cmd/tongs-guest`, or unset " + GuestEnv, Err: err}
		}
		return Guest{Path: p}, nil
	}
	if len(embedded) > 0 {
		return Guest{data: embedded}, nil
	}
	self, err := os.Executable()
	if err == nil {
		if real, lerr := filepath.EvalSymlinks(self); lerr == nil {
			self = real
		}
		p := filepath.Join(filepath.Dir(self), guestName)
		if err = regular(p); err == nil {
			return Guest{Path: p}, nil
		}
	}
	return Guest{}, &sandbox.Error{Code: sandbox.CodeFileNotFound, Op: op, Message: "there is no " + guestName + " beside this executable",
		Hint: "install both binaries into one directory, or point " + GuestEnv + " to it", Err: err}
}

func regular(p string) error {
	st, err := os.Stat(p)
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return &os.PathError{Op: "open", Path: p, Err: os.ErrInvalid}
	}
	return nil
}
