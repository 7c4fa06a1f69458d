package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/tongs-dev/tongs/internal/files"
	"github.com/tongs-dev/tongs/internal/tool"
	"github.com/tongs-dev/tongs/sandbox"

	"golang.org/x/sys/unix"
)

// editTries is how often an edit begins anew because the file was changed by
// somebody else between its reading and its writing.
const editTries = 16

func (g *engine) editFile(ctx context.Context, path, old, new string, opts sandbox.EditOptions) (*sandbox.EditResult, error) {
	const op = "edit"
	switch {
	case old == "":
		return nil, sandbox.Errf(sandbox.CodeInvalidArgument, op, "the text to replace is empty", "name the text that stands in the file; to make a file, write it")
	case old == new:
		return nil, sandbox.Errf(sandbox.CodeInvalidArgument, op, "the two texts are the same", "")
	}
	for range editTries {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		data, seen, err := g.readAll(op, path, sandbox.MaxEditBytes)
		if err != nil {
			return nil, err
		}
		if opts.IfVersion != "" && seen != opts.IfVersion {
			return nil, renamed(op, stale(path))
		}
		after, n, err := replaceText(op, path, data, old, new, opts.All)
		if err != nil {
			return nil, err
		}
		fi, err := g.writeAll(path, after, sandbox.WriteOptions{IfVersion: seen})
		if err == nil {
			return &sandbox.EditResult{Info: fi, Replaced: n}, nil
		}
		if sandbox.CodeOf(err) != sandbox.CodeVersionMismatch || opts.IfVersion != "" {
			return nil, renamed(op, err)
		}
	}
	return nil, renamed(op, stale(path))
}

func replaceText(op, path string, data []byte, old, new string, all bool) ([]byte, int, error) {
	first := bytes.Index(data, []byte(old))
	if first < 0 {
		return nil, 0, sandbox.Errf(sandbox.CodeTextNotFound, op, path+" does not hold the text that is to be replaced", "read the file again: every byte has to be the same, white space too")
	}
	n := 1
	if all {
		n = bytes.Count(data, []byte(old))
	} else if bytes.LastIndex(data, []byte(old)) != first {
		return nil, 0, sandbox.Errf(sandbox.CodeTextNotUnique, op, path+" holds the text that is to be replaced more than once", "take in more of what stands around it, or replace all")
	}
	if size := int64(len(data)) + int64(n)*int64(len(new)-len(old)); size > sandbox.MaxEditBytes {
		return nil, 0, tooLargeToEdit(op, path)
	}
	return bytes.Replace(data, []byte(old), []byte(new), n), n, nil
}

func tooLargeToEdit(op, path string) error {
	return sandbox.Errf(sandbox.CodeFileTooLarge, op, fmt.Sprintf("%s has more than %d MiB, or would have", path, sandbox.MaxEditBytes>>20), "change it with a command")
}

// readAll reads a whole file of at most limit bytes, and gives its version.
func (g *engine) readAll(op, path string, limit int64) ([]byte, string, error) {
	f, _, err := g.openRead(path, sandbox.ReadOptions{})
	if err != nil {
		return nil, "", renamed(op, err)
	}
	defer f.Close()
	if f.st.Size > limit {
		return nil, "", tooLargeToEdit(op, path)
	}
	data, more, err := readUpTo(f, limit, f.st.Size)
	if err != nil {
		return nil, "", renamed(op, err)
	}
	if more {
		return nil, "", tooLargeToEdit(op, path)
	}
	return data, version(&f.st), nil
}

// writeAll writes a whole file.
func (g *engine) writeAll(path string, data []byte, opts sandbox.WriteOptions) (sandbox.FileInfo, error) {
	w, err := g.openWrite(path, opts)
	if err != nil {
		return sandbox.FileInfo{}, err
	}
	defer w.abort()
	if _, err := w.Write(data); err != nil {
		return sandbox.FileInfo{}, err
	}
	return w.commit()
}

// renamed says that an error belongs to another operation.
func renamed(op string, err error) error {
	var e *sandbox.Error
	if !errors.As(err, &e) {
		return err
	}
	c := *e
	c.Op = op
	return &c
}

func (g *engine) applyPatch(ctx context.Context, patch string, opts sandbox.PatchOptions) (*sandbox.PatchResult, error) {
	const op = "apply patch"
	if opts.Dir == "" {
		opts.Dir = g.cfg.Project
	}
	dir, err := g.path(op, opts.Dir)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := files.Status(dir, true, &st); err != nil {
		return nil, pathError(op, dir, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil, pathError(op, dir, unix.ENOTDIR)
	}
	done, err := tool.Patch(ctx, dir, patch, opts.Strip)
	if err != nil {
		return nil, renamed(op, err)
	}
	return &sandbox.PatchResult{Files: done}, nil
}
