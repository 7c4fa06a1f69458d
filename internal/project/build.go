package project

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/idmap"
)

// errMoved says that what was being copied went away or became something else.
var errMoved = errors.New("the repository changed while it was copied")

// builder makes one layer.
type builder struct {
	ctx     context.Context
	sc      *scanner
	st      *state
	l       *Layer
	tree    int // the project's directory in the layer, open
	old     int // the same of the layer before, open; -1: there is none
	known   map[string]entry
	done    Progress
	told    time.Time
	mu      sync.Mutex // of done, told, changed, hidden
	changed []string
	hidden  []string
}

// build makes a layer of a state. It gives the paths that were not as they had been looked at.
func (s *Store) build(sc *scanner, st *state, prev *Layer) (l *Layer, changed []string, err error) {
	var random [16]byte
	rand.Read(random[:])
	id := strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(random[:]))
	l = &Layer{ID: id, dir: filepath.Join(s.dir, newPrefix+id), about: about{
		Version: layerVersion, Dir: sc.top, Ignored: sc.opts.Ignored, Map: sc.opts.Map, Files: st.files, Bytes: st.bytes, Notes: slices.Clone(st.notes), Created: time.Now(),
	}}
	defer func() {
		if err != nil {
			s.drop(l)
			l = nil
		}
	}()
	if err := os.Mkdir(l.dir, 0o755); err != nil {
		return l, nil, err
	}
	if l.lock, err = lock(l.dir); err != nil {
		return l, nil, err
	}
	b := &builder{ctx: sc.ctx, sc: sc, st: st, l: l, old: -1, told: time.Now()}
	if err := b.open(prev); err != nil {
		return l, nil, err
	}
	defer b.close()
	for _, step := range []func() error{b.directories, b.files, b.repositories, b.base, b.seed, b.manifest, b.own} {
		if err := step(); err != nil {
			return l, nil, err
		}
	}
	b.notes()
	return l, b.changed, nil
}

func (b *builder) open(prev *Layer) (err error) {
	for _, dir := range []string{inside, insideOwn, seedDir} {
		if err := mkdirAll(b.l.Root(), dir); err != nil {
			return err
		}
	}
	target := filepath.Join(b.l.Root(), inside)
	// The image has a repository of its own in that place.
	if err := makeOpaque(target); err != nil {
		return err
	}
	if b.tree, err = unix.Open(target, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return err
	}
	for _, e := range b.st.entries {
		b.done.AllFiles++
		if !e.Stat.dir() {
			b.done.AllBytes += e.Stat.Size
		}
	}
	if prev == nil {
		return nil
	}
	f, err := os.Open(filepath.Join(prev.dir, manifestFile))
	if err != nil {
		return nil // it is only slower without
	}
	defer f.Close()
	var all []entry
	if gob.NewDecoder(f).Decode(&all) != nil {
		return nil
	}
	if b.old, err = unix.Open(filepath.Join(prev.Root(), inside), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		b.old = -1
		return nil
	}
	b.known = make(map[string]entry, len(all))
	for _, e := range all {
		b.known[e.Path] = e
	}
	return nil
}

func mkdirAll(root, dir string) error {
	if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
		return err
	}
	for at := dir; at != "."; at = path.Dir(at) {
		if err := os.Chmod(filepath.Join(root, at), 0o755); err != nil {
			return err
		}
	}
	return os.Chmod(root, 0o755)
}

func (b *builder) close() {
	unix.Close(b.tree)
	if b.old >= 0 {
		unix.Close(b.old)
	}
}

// directories makes the directories. An entry is made in a directory that was opened without following a link.
func (b *builder) directories() error {
	dirs := dirCache{root: b.tree}
	defer dirs.close()
	for _, e := range b.st.entries {
		if !e.Stat.dir() {
			continue
		}
		at, err := dirs.get(path.Dir(e.Path))
		if err == nil {
			err = unix.Mkdirat(at, path.Base(e.Path), 0o700)
		}
		if err == nil {
			err = unix.Fchmodat(at, path.Base(e.Path), e.Stat.Mode&0o777, 0)
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return &fs.PathError{Op: "mkdir", Path: e.Path, Err: err}
		}
	}
	return nil
}

// files copies the files and links, several directories at once.
func (b *builder) files() error {
	var work [][]entry
	for i := 0; i < len(b.st.entries); {
		n := min(256, len(b.st.entries)-i)
		work = append(work, b.st.entries[i:i+n])
		i += n
	}
	group, ctx := errgroup.WithContext(b.ctx)
	group.SetLimit(max(2, min(8, runtime.GOMAXPROCS(0))))
	for _, part := range work {
		group.Go(func() error {
			from, to, old := dirCache{root: b.sc.root}, dirCache{root: b.tree}, dirCache{root: b.old}
			defer from.close()
			defer to.close()
			defer old.close()
			for _, e := range part {
				if err := ctx.Err(); err != nil {
					return err
				}
				if e.Stat.dir() {
					continue
				}
				if err := b.entry(&from, &to, &old, e); err != nil {
					return &fs.PathError{Op: "copy", Path: e.Path, Err: err}
				}
				b.progress(e.Stat.Size)
			}
			return nil
		})
	}
	return group.Wait()
}

func (b *builder) progress(bytes int64) {
	if b.sc.opts.Progress == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done.Files++
	b.done.Bytes += bytes
	if time.Since(b.told) > 250*time.Millisecond {
		b.told = time.Now()
		b.sc.opts.Progress(b.done)
	}
}

// moved notes that a path is not what it was.
func (b *builder) moved(p string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.changed = append(b.changed, p)
	return nil
}

// entry copies one file or link. An error is one of the layer's; what is wrong with the original is noted.
func (b *builder) entry(from, to, old *dirCache, e entry) error {
	name, parent := path.Base(e.Path), path.Dir(e.Path)
	target, err := to.get(parent)
	if err != nil {
		return err
	}
	if k, ok := b.known[e.Path]; ok && k.Stat.same(e.Stat) && k.Hash == e.Hash {
		if at, err := old.get(parent); err == nil && unix.Linkat(at, name, target, name, 0) == nil {
			return nil
		}
	}
	source, err := from.get(parent)
	if err != nil {
		return b.moved(e.Path)
	}
	if e.Stat.kind() == unix.S_IFLNK {
		return b.link(source, target, name, e)
	}
	fd, err := openBeneath(source, name, unix.O_RDONLY, 0)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || err == nil && !b.mayRead(e.Stat) {
		if err == nil {
			unix.Close(fd)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.hidden = append(b.hidden, e.Path)
		return nil
	}
	if err != nil {
		return b.moved(e.Path)
	}
	in := os.NewFile(uintptr(fd), e.Path)
	defer in.Close()
	if st, err := statFile(fd); err != nil || !st.same(e.Stat) {
		return b.moved(e.Path)
	}
	whole, err := b.file(in, target, name, e.Stat)
	if err != nil {
		return err
	}
	if st, err := statFile(fd); !whole || err != nil || !st.same(e.Stat) {
		return b.moved(e.Path)
	}
	return nil
}

// mayRead says whether root may take a file of somebody else's directory: only what its owner may read, too.
func (b *builder) mayRead(st stat) bool {
	return os.Geteuid() != 0 || b.sc.owner.UID == 0 || st.UID == b.sc.owner.UID || st.Mode&0o004 != 0 || st.GID == b.sc.owner.GID && st.Mode&0o040 != 0
}

// file copies an open file of the user's; whole says whether it had the size that it should have.
func (b *builder) file(in *os.File, dir int, name string, st stat) (whole bool, err error) {
	fd, err := openBeneath(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return false, err
	}
	out := os.NewFile(uintptr(fd), name)
	defer func() { err = errors.Join(err, out.Close()) }()
	whole = true
	if st.Size > 0 && !cloneFile(out, in) {
		n, err := io.Copy(out, io.LimitReader(in, st.Size+1))
		if err != nil {
			return false, err
		}
		whole = n == st.Size
	}
	if os.Geteuid() == 0 {
		if err := unix.Fchown(fd, userID, userID); err != nil {
			return false, err
		}
	}
	if err := unix.Fchmod(fd, st.Mode&0o777); err != nil {
		return false, err
	}
	return whole, setTime(dir, name, st.Mtime)
}

// setTime gives a file of the layer the time of the original, by which git sees that it is the same.
func setTime(dir int, name string, mtime int64) error {
	at := unix.NsecToTimespec(mtime)
	return unix.UtimesNanoAt(dir, name, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW)
}

func (b *builder) link(source, target int, name string, e entry) error {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(source, name, buf)
	if err != nil {
		return b.moved(e.Path)
	}
	if st, err := statAt(source, name); err != nil || !st.same(e.Stat) {
		return b.moved(e.Path)
	}
	if err := unix.Symlinkat(string(buf[:n]), target, name); err != nil {
		return err
	}
	return setTime(target, name, e.Stat.Mtime)
}

// own gives everything to the sandbox's user, where that is somebody else than this one.
func (b *builder) own() error {
	home := filepath.Join(b.l.Root(), "home/user")
	err := filepath.WalkDir(home, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.Type()&fs.ModeSymlink != 0 {
			return err
		}
		// What git has made has the rights that this process gives to new files; others have to read it.
		rel, err := filepath.Rel(b.l.Root(), p)
		if parts := strings.Split(rel, "/"); err != nil || !slices.Contains(parts, ".git") && !slices.Contains(parts, ".local") {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if mode := info.Mode().Perm(); e.IsDir() && mode != 0o755 {
			return os.Chmod(p, 0o755)
		} else if !e.IsDir() && mode&0o444 != 0o444 {
			return os.Chmod(p, 0o644)
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case !b.l.Map.None():
		return giveAway.Run(b.ctx, b.l.Map, b.l.Root(), idmap.Streams{})
	case os.Geteuid() != 0:
		return nil
	}
	return giveTree(b.l.Root())
}

// giveAway gives the tree of a layer to the ids that it has inside, as an ordinary user who has a range of ids.
var giveAway = idmap.Task{Name: "project.giveAway"}

func init() {
	giveAway.Serve(func(_ context.Context, argument func(any) error) error {
		var dir string
		if err := argument(&dir); err != nil {
			return err
		}
		return giveTree(dir)
	})
}

// giveTree gives the home in a tree to the sandbox's user, and what is above it to root.
func giveTree(root string) error {
	return filepath.WalkDir(root, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		id := 0
		if rel, err := filepath.Rel(filepath.Join(root, "home/user"), p); err == nil && filepath.IsLocal(rel) {
			id = userID
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		if int(st.Uid) == id && int(st.Gid) == id {
			return nil
		}
		return os.Lchown(p, id, id)
	})
}

// manifest notes what the layer has, for the next one.
func (b *builder) manifest() error {
	gone := map[string]bool{}
	for _, p := range slices.Concat(b.changed, b.hidden) {
		gone[p] = true
	}
	kept := make([]entry, 0, len(b.st.entries))
	for _, e := range b.st.entries {
		if !e.Stat.dir() && !gone[e.Path] {
			kept = append(kept, e)
		}
	}
	f, err := os.OpenFile(filepath.Join(b.l.dir, manifestFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(gob.NewEncoder(f).Encode(kept), f.Close())
}

// notes says what was left out.
func (b *builder) notes() {
	skipped := maps.Clone(b.st.skipped)
	skipped["cannot be read"] = slices.Concat(skipped["cannot be read"], b.hidden)
	for _, why := range slices.Sorted(maps.Keys(skipped)) {
		if paths := skipped[why]; len(paths) > 0 {
			slices.Sort(paths)
			b.l.Notes = append(b.l.Notes, fmt.Sprintf("left out, %s%s", why, some(paths)))
		}
	}
}
