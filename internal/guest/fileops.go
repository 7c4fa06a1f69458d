package guest

import (
	"github.com/tongs-dev/tongs/internal/files"
	"github.com/tongs-dev/tongs/sandbox"
)

func (g *engine) mkdir(path string, parents bool) error {
	const op = "make directory"
	path, err := g.path(op, path)
	if err != nil {
		return err
	}
	if parents {
		return sandbox.FileError(op, files.MkdirAll(path, 0o777))
	}
	return sandbox.FileError(op, files.Mkdir(path, 0o777))
}

func (g *engine) removeFile(path string, recursive bool) error {
	const op = "remove"
	path, err := g.path(op, path)
	if err != nil {
		return err
	}
	// Something must be there: RemoveAll alone is content with nothing.
	if _, err := files.Lstat(path); err != nil {
		return sandbox.FileError(op, err)
	}
	if recursive {
		return sandbox.FileError(op, files.RemoveAll(path))
	}
	return sandbox.FileError(op, files.Remove(path))
}

func (g *engine) rename(from, to string) error {
	const op = "rename"
	from, err := g.path(op, from)
	if err != nil {
		return err
	}
	if to, err = g.path(op, to); err != nil {
		return err
	}
	return sandbox.FileError(op, files.Rename(from, to))
}

func (g *engine) chmod(path string, mode uint32) error {
	const op = "chmod"
	path, err := g.path(op, path)
	if err != nil {
		return err
	}
	if mode&^0o7777 != 0 {
		return sandbox.Errf(sandbox.CodeInvalidArgument, op, "the mode has more than permission bits", "")
	}
	return sandbox.FileError(op, files.Chmod(path, mode))
}

func (g *engine) symlink(target, path string) error {
	const op = "symlink"
	path, err := g.path(op, path)
	if err != nil {
		return err
	}
	return sandbox.FileError(op, files.Symlink(target, path))
}
