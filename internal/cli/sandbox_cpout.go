package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/tongs-dev/tongs/sandbox"
)

// out copies out of the sandbox. Nothing that the sandbox says is believed: names are resolved within the
// target's directory, which no link leads out of.
func (k *copier) out(ctx context.Context, from, to string, several bool) error {
	from = orDot(from)
	info, err := k.box.Stat(ctx, from)
	if err != nil {
		return err
	}
	if to == "-" {
		if info.Type == sandbox.TypeDirectory {
			return sandbox.Errf(sandbox.CodeIsDirectory, "copy", from+" is a directory", "print it as an archive: tongs sandbox exec NAME tar c "+from)
		}
		r, err := k.box.OpenFile(ctx, from, sandbox.ReadOptions{})
		if err != nil {
			return err
		}
		defer r.Close()
		n, err := io.Copy(k.s.stdout, r)
		if err != nil {
			return err
		}
		return k.count(1, n)
	}
	here, err := os.Stat(to)
	into := several || strings.HasSuffix(to, "/")
	switch {
	case err == nil && here.IsDir():
		into = true
	case err == nil && into:
		return fmt.Errorf("%s is no directory", to)
	case err == nil && info.Type == sandbox.TypeDirectory:
		return fmt.Errorf("%s is a file, and %s a directory", to, from)
	case err != nil && into:
		return fmt.Errorf("there is no directory %s: make it first", to)
	}
	if into {
		name := path.Base(path.Clean(info.Path))
		if !filepath.IsLocal(name) || strings.ContainsRune(name, '/') {
			return fmt.Errorf("the sandbox gives %q as the name of a file: give the target one", printable(name))
		}
		to = filepath.Join(to, name)
	}
	if info.Type == sandbox.TypeDirectory {
		return k.outTree(ctx, info.Path, to)
	}
	dir, err := os.OpenRoot(filepath.Dir(filepath.Clean(to)))
	if err != nil {
		return err
	}
	defer dir.Close()
	return k.outFile(ctx, dir, info, filepath.Base(filepath.Clean(to)))
}

// outTree copies a directory into one that is made if it is not there.
func (k *copier) outTree(ctx context.Context, from, to string) error {
	if err := os.Mkdir(to, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	root, err := os.OpenRoot(to)
	if err != nil {
		return err
	}
	defer root.Close()
	opts := sandbox.ListOptions{Recursive: true, Hidden: true, Limit: 5000}
	for {
		page, err := k.box.ListFiles(ctx, from, opts)
		if err != nil {
			return err
		}
		for _, e := range page.Entries {
			name := filepath.FromSlash(below(from, e.Path))
			if !filepath.IsLocal(name) {
				return fmt.Errorf("the sandbox lists %q, which is not below %q: nothing more is copied", printable(e.Path), printable(from))
			}
			if err := k.outEntry(ctx, root, e, name); err != nil {
				return fmt.Errorf("%s: %w", printable(e.Path), err)
			}
		}
		if page.Next == "" || len(page.Entries) == 0 {
			return nil
		}
		opts.Cursor = page.Next
	}
}

func (k *copier) outEntry(ctx context.Context, root *os.Root, e sandbox.FileInfo, name string) error {
	switch e.Type {
	case sandbox.TypeDirectory:
		if err := root.MkdirAll(name, 0o777); err != nil {
			return err
		}
		return root.Chmod(name, os.FileMode(e.Mode&0o777)|0o700)
	case sandbox.TypeSymlink:
		if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := root.Symlink(e.Target, name); err != nil {
			return err
		}
		return k.count(1, 0)
	case sandbox.TypeFile:
		return k.outFile(ctx, root, &e, name)
	}
	fmt.Fprintf(k.s.stderr, "tongs: left out: %s is no regular file\n", printable(e.Path))
	return nil
}

// outFile writes beside the target and then renames, so that half a file is never seen.
func (k *copier) outFile(ctx context.Context, root *os.Root, e *sandbox.FileInfo, name string) (err error) {
	r, err := k.box.OpenFile(ctx, e.Path, sandbox.ReadOptions{})
	if err != nil {
		return err
	}
	defer r.Close()
	if fi, err := root.Stat(name); err == nil && !fi.Mode().IsRegular() {
		if fi.IsDir() {
			return fmt.Errorf("%s is a directory here", name)
		}
		return k.outInto(root, r, name) // a pipe or a device: it is written to
	}
	part := filepath.Join(filepath.Dir(name), "."+newProcessID("tongs-copy"))
	f, err := root.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			_ = root.Remove(part)
		}
	}()
	n, err := io.Copy(f, r)
	if err != nil {
		return err
	}
	if err = f.Chmod(os.FileMode(e.Mode & 0o777)); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = root.Chtimes(part, e.Modified, e.Modified); err != nil {
		return err
	}
	if err = root.Rename(part, name); err != nil {
		return err
	}
	return k.count(1, n)
}

func (k *copier) outInto(root *os.Root, r io.Reader, name string) error {
	f, err := root.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.Copy(f, r)
	if err != nil {
		return err
	}
	return k.count(1, n)
}
