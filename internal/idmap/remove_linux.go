package idmap

import (
	"context"
	"errors"
	"io/fs"
	"os"
)

var removal = Task{Name: "idmap.remove"}

func init() {
	removal.Serve(func(_ context.Context, argument func(any) error) error {
		var dir string
		if err := argument(&dir); err != nil {
			return err
		}
		return os.RemoveAll(dir)
	})
}

// RemoveAll removes a directory of the calling user's in which there are files of the map's ids. Without
// a map it is os.RemoveAll; so it is also where newuidmap can't be used any more, and gives the reason for
// that if the user's own rights aren't enough.
func RemoveAll(ctx context.Context, m Map, dir string) error {
	if m.None() {
		return os.RemoveAll(dir)
	}
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	err := removal.Run(ctx, m, dir, Streams{})
	if err == nil || ctx.Err() != nil {
		return err
	}
	if os.RemoveAll(dir) == nil {
		return nil
	}
	return err
}

// Remove removes a directory in which there may be files of the calling user's map.
func Remove(ctx context.Context, dir string) error {
	err := os.RemoveAll(dir)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	m, ferr := Find()
	if ferr != nil || m.None() {
		return err
	}
	return RemoveAll(ctx, m, dir)
}
