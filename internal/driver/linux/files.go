//go:build linux

package linux

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/image/layer"
)

// tree writes into a sandbox's root from outside, before anybody is inside. Links are followed only
// within it.
type tree struct {
	root  *os.Root
	lower layer.Union // what lies below root, where root is only the upper layer; else nil
	r     record
}

// prepare writes a new sandbox's files into the root at dir, and makes the places for its binds. lower
// are the image's layers where dir is only the one above them, else nil.
func prepare(dir string, lower []string, r record, files []driver.File) error {
	if len(files) == 0 && len(r.Spec.Binds) == 0 {
		return nil
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	t := &tree{root: root, r: r}
	if lower != nil {
		if t.lower, err = layer.OpenUnion(lower); err != nil {
			return err
		}
		defer t.lower.Close()
	}
	for _, f := range files {
		if err := t.write(f); err != nil {
			return err
		}
	}
	for _, b := range r.Spec.Binds {
		info, err := os.Stat(b.Source)
		if err != nil {
			return err
		}
		if err := t.mountPoint(b.Target, info.IsDir()); err != nil {
			return err
		}
	}
	return nil
}

// own gives something to one of the sandbox's ids.
func (t *tree) own(p string, uid uint32) error {
	if t.r.rootless() {
		return nil
	}
	return t.root.Lchown(p, int(t.r.Base+uid), int(t.r.Base+uid))
}

// parents makes the directories above p that aren't there.
func (t *tree) parents(p string, uid uint32) error {
	dir := ""
	for _, part := range strings.Split(path.Dir(p), "/") {
		if part == "" || part == "." {
			continue
		}
		dir = path.Join(dir, part)
		mode := fs.FileMode(0o755)
		if t.lower != nil {
			// A directory of both layers looks as it does in the upper one; a link must not be hidden.
			if info, err := t.lower.Lstat(dir); err == nil && !info.IsDir() {
				return driver.Invalid("prepare sandbox", "/%s is not a directory in the image", dir)
			} else if err == nil {
				mode = info.Mode() & (fs.ModePerm | fs.ModeSticky)
			}
		}
		err := t.root.Mkdir(dir, 0o700)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err := errors.Join(err, t.own(dir, uid), t.root.Chmod(dir, mode)); err != nil {
			return err
		}
	}
	return nil
}

func (t *tree) write(f driver.File) error {
	if f.UID >= rangeSize {
		return driver.Invalid("write file", "%s: user id %d is beyond the sandbox's %d", f.Path, f.UID, rangeSize)
	}
	p := f.Path[1:]
	if err := t.parents(p, f.UID); err != nil {
		return err
	}
	mode := f.Mode.Perm()
	if mode == 0 {
		mode = 0o644
	}
	if err := t.root.WriteFile(p, f.Data, 0o600); err != nil {
		return err
	}
	return errors.Join(t.own(p, f.UID), t.root.Chmod(p, mode))
}

// mountPoint makes sure that something can be mounted at target.
func (t *tree) mountPoint(target string, dir bool) error {
	p := target[1:]
	info, err := t.root.Lstat(p)
	if t.lower != nil && errors.Is(err, fs.ErrNotExist) {
		info, err = t.lower.Lstat(p)
	}
	if err == nil {
		if info.IsDir() != dir || info.Mode()&fs.ModeSymlink != 0 {
			return driver.Invalid("bind", "%s exists in the sandbox and is not a %s", target, map[bool]string{true: "directory", false: "file"}[dir])
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := t.parents(p, 0); err != nil {
		return err
	}
	if dir {
		err = t.root.Mkdir(p, 0o755)
	} else {
		err = t.root.WriteFile(p, nil, 0o644)
	}
	return errors.Join(err, t.own(p, 0))
}
