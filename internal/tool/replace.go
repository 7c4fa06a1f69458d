package tool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"github.com/tongs-dev/tongs/internal/files"
	"github.com/tongs-dev/tongs/sandbox"
)

// A change is what shall happen to one file. old is what the file held when the
// change was worked out (nil: it was not there); the change is refused if that
// is no longer so.
type change struct {
	path string
	old  []byte
	new  []byte      // nil: remove
	mode fs.FileMode // permissions of a file that is made; 0: the usual ones
}

// commit carries changes out: all of them, or, when one fails, none. A file is
// put in place whole by a rename, keeping its mode, or, where a rename would
// lose something (another owner, several names, extended attributes) or is not
// possible, written in place.
func commit(ctx context.Context, changes []change) error {
	done := make([]undo, 0, len(changes))
	for _, c := range changes {
		err := ctx.Err()
		var u undo
		if err == nil {
			err = c.verify(ctx)
		}
		if err == nil {
			u, err = c.apply(len(changes) > 1)
			done = append(done, u)
		}
		if err != nil {
			for _, u := range slices.Backward(done) {
				u.roll()
			}
			return err
		}
	}
	for _, u := range done {
		if u.backup != "" {
			_ = files.Remove(u.backup)
		}
	}
	return nil
}

// verify looks whether the file still is what it was.
func (c change) verify(ctx context.Context) error {
	now, err := readWhole(ctx, c.path, maxFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if c.old == nil {
			return nil
		}
	case err != nil:
		return readError(c.path, err)
	case c.old != nil && bytes.Equal(now, c.old):
		return nil
	}
	return failf(sandbox.CodeVersionMismatch, "File %s was changed by something else in the meantime. Read it again and repeat the change.", c.path)
}

// undo takes one change back.
type undo struct {
	path   string
	backup string   // the file as it was, under another name
	old    []byte   // the file as it was, when there is no backup
	made   bool     // the file was not there
	dirs   []string // directories made for it, outermost first
}

func (u undo) roll() {
	switch {
	case u.backup != "":
		_ = files.Rename(u.backup, u.path)
	case u.made:
		_ = files.Remove(u.path)
	case u.old != nil:
		_ = writeInPlace(u.path, u.old, 0)
	}
	for _, dir := range slices.Backward(u.dirs) {
		_ = files.Remove(dir) // fails when somebody else put something there
	}
}

// apply carries one change out. With undoable it can be taken back after it has
// succeeded; it is always taken back when it fails.
func (c change) apply(undoable bool) (u undo, err error) {
	u = undo{path: realPath(c.path), old: c.old, made: c.old == nil}
	defer func() {
		if err != nil {
			u.made = false // what is there now is not ours
			u.roll()
			u = undo{}
		}
	}()
	if c.new == nil {
		// What goes is the name: of a link the link, as rm does.
		u.path = c.path
		backup := sibling(c.path)
		if err = files.Rename(c.path, backup); err != nil {
			return undo{}, writeError("delete", c.path, err)
		}
		u.backup = backup
		return u, nil
	}
	st, err := files.Stat(u.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if u.dirs, err = makeDirs(filepath.Dir(u.path)); err == nil {
			err = placeNew(u.path, c.new, c.mode)
		}
	case err != nil:
	case !st.Mode().IsRegular():
		return undo{}, notRegular(c.path, st.Mode())
	case !renameKeeps(u.path, st):
		err = writeInPlace(u.path, c.new, 0)
	default:
		backup := sibling(u.path)
		temp, terr := writeTemp(u.path, c.new, st.Mode().Perm())
		if terr == nil && !undoable && files.Rename(temp, u.path) == nil {
			return u, nil
		}
		if terr == nil && undoable && files.Link(u.path, backup) == nil {
			if err = files.Rename(temp, u.path); err == nil {
				u.backup = backup
				return u, nil
			}
			_ = files.Remove(backup)
		}
		if temp != "" {
			_ = files.Remove(temp)
		}
		// No room for a second copy, a directory we may not write, a mount point.
		if errors.Is(terr, syscall.ENOSPC) || errors.Is(terr, syscall.EDQUOT) {
			err = terr
			u.old, u.made = nil, false
		} else {
			err = writeInPlace(u.path, c.new, 0)
		}
	}
	if err != nil {
		err = writeError("write", c.path, err)
	}
	return u, err
}

// placeNew makes a file that is not there.
func placeNew(path string, data []byte, mode fs.FileMode) error {
	temp, err := writeTemp(path, data, mode)
	if err == nil {
		if err = files.Rename(temp, path); err == nil {
			return nil
		}
		_ = files.Remove(temp)
	}
	return err
}

// writeTemp writes data beside path. A mode of 0 is what the umask leaves.
func writeTemp(path string, data []byte, mode fs.FileMode) (string, error) {
	temp := sibling(path)
	f, err := files.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if err == nil && mode != 0 {
		err = f.Chmod(mode)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = files.Remove(temp)
		return "", err
	}
	return temp, nil
}

func writeInPlace(path string, data []byte, mode fs.FileMode) error {
	if mode == 0 {
		mode = 0o666
	}
	f, err := files.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NONBLOCK|syscall.O_NOCTTY, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// uniqueName gives 16 digits that no other file's name will have. It is no secret:
// what is made with it is made with O_EXCL.
func uniqueName() string { return fmt.Sprintf("%016x", rand.Uint64()) }

// sibling names a file that does not exist, in the same directory.
func sibling(path string) string {
	return filepath.Join(filepath.Dir(path), ".tongs-"+uniqueName()+".tmp")
}

// renameKeeps reports whether replacing a file by a new one loses nothing.
func renameKeeps(path string, st fs.FileInfo) bool {
	raw, ok := st.Sys().(*syscall.Stat_t)
	if !ok || raw.Nlink != 1 || int(raw.Uid) != os.Geteuid() || int(raw.Gid) != os.Getegid() {
		return false
	}
	if st.Mode()&^(fs.ModePerm) != 0 {
		return false // setuid, setgid, sticky
	}
	n, err := syscall.Listxattr(path, nil)
	return n == 0 || err != nil
}

// makeDirs makes a directory and those above it and tells which it made.
func makeDirs(dir string) (made []string, err error) {
	for missing := dir; ; missing = filepath.Dir(missing) {
		if _, err := files.Lstat(missing); err == nil || !errors.Is(err, fs.ErrNotExist) {
			break
		}
		made = append(made, missing)
	}
	slices.Reverse(made)
	return made, files.MkdirAll(dir, 0o777)
}

func writeError(verb, path string, err error) error {
	var known *sandbox.Error
	if errors.As(err, &known) {
		return known
	}
	if errors.Is(err, files.ErrMagicLink) {
		return fail(err, "Cannot %s %s: %v", verb, path, files.ErrMagicLink)
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return fail(err, "Cannot %s %s: %s", verb, path, errno.Error())
	}
	return fail(err, "Cannot %s %s: %v", verb, path, err)
}

// locks serialises the changes of this process to one file: reading, asking and
// writing back are one step.
var locks = struct {
	sync.Mutex
	held map[string]*pathLock
}{held: map[string]*pathLock{}}

type pathLock struct {
	turn  chan struct{} // holds one element while somebody has the lock
	users int
}

// lockPaths waits for its turn on all the files named, or for the context.
func lockPaths(ctx context.Context, paths ...string) (unlock func(), err error) {
	keys := make([]string, len(paths))
	for i, path := range paths {
		keys[i] = realPath(path)
	}
	slices.Sort(keys) // one order for everybody: no two wait for each other
	keys = slices.Compact(keys)
	var got []string
	unlock = func() {
		for _, key := range got {
			release(key, true)
		}
	}
	for _, key := range keys {
		locks.Lock()
		l := locks.held[key]
		if l == nil {
			l = &pathLock{turn: make(chan struct{}, 1)}
			locks.held[key] = l
		}
		l.users++
		locks.Unlock()
		select {
		case l.turn <- struct{}{}:
			got = append(got, key)
		case <-ctx.Done():
			release(key, false)
			unlock()
			return nil, ctx.Err()
		}
	}
	return unlock, nil
}

func release(key string, held bool) {
	locks.Lock()
	defer locks.Unlock()
	l := locks.held[key]
	if held {
		<-l.turn
	}
	if l.users--; l.users == 0 {
		delete(locks.held, key)
	}
}

func statMode(path string) (fs.FileMode, error) {
	st, err := files.Stat(path)
	if err != nil {
		return 0, err
	}
	return st.Mode(), nil
}
