//go:build linux

package linux

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// cannotLayer reports whether an overlay on an idmapped image was found impossible here.
func (d *Driver) cannotLayer() bool { return d.cfg.NoIdmap || d.layers.Load() != nil }

func (d *Driver) noLayers(err error) {
	if d.layers.CompareAndSwap(nil, &err) {
		d.log.Warn("each sandbox gets a copy of the image, which is slower than layers", "reason", err)
	}
}

func (d *Driver) whyNoLayers() string {
	if err := d.layers.Load(); err != nil {
		return (*err).Error()
	}
	return "switched off"
}

// copyTree copies the tree of an image for one sandbox, owned by the sandbox's ids.
func copyTree(ctx context.Context, from, to string, r record) error {
	return filepath.WalkDir(from, func(p string, e fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		switch mode := info.Mode(); {
		case mode.IsDir():
			err = os.Mkdir(target, 0o700)
		case mode&fs.ModeSymlink != 0:
			var link string
			if link, err = os.Readlink(p); err == nil {
				err = os.Symlink(link, target)
			}
		case mode.IsRegular():
			err = copyFile(p, target)
		default:
			return nil // an image has nothing else
		}
		if err != nil {
			return err
		}
		if !r.rootless() {
			st := info.Sys().(*syscall.Stat_t)
			if err := os.Lchown(target, int(r.Base+st.Uid), int(r.Base+st.Gid)); err != nil {
				return err
			}
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			return nil
		}
		return os.Chmod(target, info.Mode()&(fs.ModePerm|fs.ModeSticky))
	})
}

func copyFile(from, to string) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}

// removeAll removes a tree. Without rights of root, directories that the sandbox has made unwritable have
// to be opened first; nobody else is at work in it any more.
func removeAll(dir string) error {
	err := os.RemoveAll(dir)
	if !errors.Is(err, fs.ErrPermission) || os.Geteuid() == 0 {
		return err
	}
	werr := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() { // asked before the directory is read
			return os.Chmod(p, 0o700)
		}
		return nil
	})
	if werr != nil {
		return werr
	}
	return os.RemoveAll(dir)
}
