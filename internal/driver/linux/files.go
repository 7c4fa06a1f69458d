//go:build linux

package linux

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/tongs-dev/tongs/internal/driver"
)

// tree writes into a sandbox's root from outside, before anybody is inside. Links are followed only
// within it.
type tree struct {
	root *os.Root
	base uint32
}

func openTree(root *os.File, base uint32) (*tree, error) {
	r, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", root.Fd()))
	if err != nil {
		return nil, err
	}
	return &tree{r, base}, nil
}

func (t *tree) close() { t.root.Close() }

// own gives something to one of the sandbox's ids.
func (t *tree) own(p string, uid uint32) error {
	return t.root.Lchown(p, int(t.base+uid), int(t.base+uid))
}

// parents makes the directories above p that aren't there.
func (t *tree) parents(p string, uid uint32) error {
	dir := ""
	for _, part := range strings.Split(path.Dir(p), "/") {
		if part == "" || part == "." {
			continue
		}
		dir = path.Join(dir, part)
		err := t.root.Mkdir(dir, 0o755)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := t.own(dir, uid); err != nil {
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
