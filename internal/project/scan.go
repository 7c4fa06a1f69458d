package project

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/sandbox"
)

const (
	// maxDepth bounds how deep directories may be.
	maxDepth = 512
	// maxNested bounds the repositories within the project.
	maxNested = 500
	// recent is how old a change must be before a change after it is certain to have another time.
	recent = 20 * time.Millisecond
)

// stat is what tells a file from what it was or will be.
type stat struct {
	Mode         uint32 // as in struct stat
	Size         int64
	Mtime, Ctime int64 // nanoseconds
	Ino, Dev     uint64
	UID, GID     uint32
}

func (s stat) kind() uint32 { return s.Mode & unix.S_IFMT }
func (s stat) dir() bool    { return s.kind() == unix.S_IFDIR }

// same says whether two looks at a file have seen the same one. Who owns it does not matter.
func (s stat) same(o stat) bool {
	s.UID, s.GID, o.UID, o.GID = 0, 0, 0, 0
	return s == o
}

// entry is a directory, a file or a link of the project; Path is below its directory.
type entry struct {
	Path string
	Stat stat
	Hash string // of a file that has just been changed
}

// state is the project as it was at one look.
type state struct {
	entries []entry // by path; a directory comes before what is in it
	repos   []repo  // the outermost first
	files   int
	bytes   int64
	print   string
	notes   []string
	skipped map[string][]string // paths that are left out, by reason
}

// scanner looks at a directory.
type scanner struct {
	ctx     context.Context
	program string
	top     string // absolute, without links
	root    int    // the same, open
	owner   stat
	home    string // of Tongs, below top; "" if it is elsewhere
	opts    Options
	began   time.Time

	st   *state
	dirs dirCache
	seen map[string]bool
}

// dirCache keeps the directory open that was asked for last: names come in the order of their directories.
type dirCache struct {
	root int
	name string
	fd   int
	open bool
}

func (c *dirCache) get(name string) (int, error) {
	if name == "." || name == "" {
		return c.root, nil
	}
	if c.open && c.name == name {
		return c.fd, nil
	}
	c.close()
	fd, err := openBeneath(c.root, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return -1, err
	}
	c.name, c.fd, c.open = name, fd, true
	return fd, nil
}

func (c *dirCache) close() {
	if c.open {
		unix.Close(c.fd)
		c.open = false
	}
}

func statAt(dir int, name string) (stat, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return stat{}, err
	}
	return statOf(&st), nil
}

func statFile(fd int) (stat, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return stat{}, err
	}
	return statOf(&st), nil
}

// scan looks at the project.
func (s *scanner) scan() (*state, error) {
	s.began = time.Now()
	s.st = &state{skipped: map[string][]string{}}
	s.seen = map[string]bool{}
	s.dirs = dirCache{root: s.root}
	defer s.dirs.close()
	if err := s.tree("", 0); err != nil {
		return nil, err
	}
	slices.SortFunc(s.st.entries, func(a, b entry) int { return comparePaths(a.Path, b.Path) })
	s.st.print = s.fingerprint()
	return s.st, nil
}

// comparePaths sorts by components, so that what is in a directory follows it at once.
func comparePaths(a, b string) int {
	for i := 0; i < len(a) && i < len(b); i++ {
		if a[i] != b[i] {
			switch {
			case a[i] == '/':
				return -1
			case b[i] == '/':
				return 1
			}
			return int(a[i]) - int(b[i])
		}
	}
	return len(a) - len(b)
}

// tree takes what is at prefix: by git's list if it is a repository, else everything.
func (s *scanner) tree(prefix string, depth int) error {
	if depth > maxDepth {
		return sandbox.Errf(CodeTooLarge, opTake, fmt.Sprintf("directories of the project are more than %d deep", maxDepth), "")
	}
	dir, err := s.dirs.get(orDot(prefix))
	if err != nil {
		return s.unreadable(prefix, err)
	}
	if _, err := statAt(dir, ".git"); err == nil {
		err := s.repository(prefix, depth)
		if err == nil || prefix == "" || s.ctx.Err() != nil || errors.Is(err, errBound) {
			return err
		}
		s.st.notes = append(s.st.notes, fmt.Sprintf("the repository in %q is left out: %v", prefix, err))
		return nil
	}
	return s.walk(prefix, depth)
}

// walk takes everything in a directory that is no repository.
func (s *scanner) walk(prefix string, depth int) error {
	names, err := s.list(prefix)
	if err != nil {
		return s.unreadable(prefix, err)
	}
	if prefix == "" {
		s.st.repos = append(s.st.repos, repo{Plain: true})
	}
	for _, name := range names {
		p := path.Join(prefix, name)
		dir, err := s.dirs.get(orDot(prefix))
		if err != nil {
			return s.unreadable(prefix, err)
		}
		st, err := statAt(dir, name)
		switch {
		case err != nil:
			continue // gone meanwhile
		case st.dir():
			if p == s.home {
				continue
			}
			if err := s.add(p, st); err != nil {
				return err
			}
			if err := s.tree(p, depth+1); err != nil {
				return err
			}
		default:
			if err := s.add(p, st); err != nil {
				return err
			}
		}
	}
	return nil
}

// list gives the names in a directory, sorted.
func (s *scanner) list(name string) ([]string, error) {
	if err := s.ctx.Err(); err != nil {
		return nil, err
	}
	fd, err := openBeneath(s.root, orDot(name), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	names, err := f.Readdirnames(s.opts.MaxFiles + 1)
	if err == io.EOF {
		err = nil
	}
	slices.Sort(names)
	return names, err
}

// repository takes what git lists.
func (s *scanner) repository(prefix string, depth int) error {
	if len(s.st.repos) >= maxNested {
		return sandbox.Errf(CodeTooLarge, opTake, fmt.Sprintf("there are more than %d repositories in the project", maxNested), "take one of them")
	}
	g, err := usersGit(s.program, filepath.Join(s.top, prefix), s.owner)
	if err != nil {
		return err
	}
	r, err := readRepo(s.ctx, g, prefix)
	if err != nil {
		return err
	}
	s.st.repos = append(s.st.repos, *r)
	args := []string{"ls-files", "-z", "--cached", "--others"}
	if !s.opts.Ignored {
		args = append(args, "--exclude-standard")
	}
	if r.sparse() {
		args = append(args, "--sparse") // else git makes objects of what the index leaves out
	}
	lister, done, err := r.lister(g, s.owner)
	if err != nil {
		return err
	}
	out, err := lister.run(s.ctx, nil, maxListing, args...)
	done()
	if err != nil {
		return err
	}
	last := ""
	for raw := range bytes.SplitSeq(out, []byte{0}) {
		name := strings.TrimSuffix(string(raw), "/")
		if name == "" || name == last || !local(name) { // in a conflict a name is there several times
			continue
		}
		last = name
		p := path.Join(prefix, name)
		if s.home != "" && (p == s.home || strings.HasPrefix(p, s.home+"/")) {
			continue
		}
		parent := path.Dir(p)
		dir, err := s.parents(parent)
		if err != nil {
			if errors.Is(err, unix.EACCES) {
				s.skip("cannot be read", p)
			}
			continue // gone, or a link now
		}
		st, err := statAt(dir, path.Base(p))
		if err != nil {
			continue // deleted, and git not told of it
		}
		if st.dir() && s.seen[p] {
			continue
		}
		if err := s.add(p, st); err != nil {
			return err
		}
		if !st.dir() {
			continue
		}
		s.seen[p] = true
		sub, err := s.dirs.get(p)
		if err != nil {
			continue
		}
		if _, err := statAt(sub, ".git"); err == nil { // a submodule, or another repository
			if err := s.tree(p, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// parents opens the directory that holds a file, and takes it and those above it, if they have not been.
func (s *scanner) parents(name string) (int, error) {
	if name == "." {
		return s.root, nil
	}
	fd, err := s.dirs.get(name)
	if err != nil || s.seen[name] {
		return fd, err
	}
	for at := name; at != "." && !s.seen[at]; at = path.Dir(at) {
		dir, err := s.dirs.get(at)
		if err != nil {
			return -1, err
		}
		st, err := statFile(dir)
		if err != nil {
			return -1, err
		}
		s.seen[at] = true
		if err := s.add(at, st); err != nil {
			return -1, err
		}
	}
	return s.dirs.get(name)
}

// local says whether a name that git gave is one below the directory and not in a .git.
func local(name string) bool {
	if !filepath.IsLocal(name) || path.Clean(name) != name {
		return false
	}
	return !slices.Contains(strings.Split(name, "/"), ".git")
}

func (s *scanner) unreadable(p string, err error) error {
	switch {
	case s.ctx.Err() != nil:
		return s.ctx.Err()
	case p == "":
		return takeError(err)
	case errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM):
		s.skip("cannot be read", p)
		return nil
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP):
		return nil // gone meanwhile; the second look sees to it
	}
	return takeError(fmt.Errorf("%s: %w", p, err))
}

// skip notes a path that is left out.
func (s *scanner) skip(why, p string) { s.st.skipped[why] = append(s.st.skipped[why], p) }

// add takes one name.
func (s *scanner) add(p string, st stat) error {
	switch st.kind() {
	case unix.S_IFDIR:
		st.Mode |= 0o700 // whoever makes the layer has to get in
		st.Size, st.Mtime, st.Ctime, st.Ino, st.Dev = 0, 0, 0, 0, 0
	case unix.S_IFREG:
		s.st.bytes += st.Size
	case unix.S_IFLNK:
	default:
		s.skip("no file, directory or link", p)
		return nil
	}
	if s.st.files++; s.st.files > s.opts.MaxFiles || s.st.bytes > s.opts.MaxBytes {
		return s.tooLarge()
	}
	e := entry{Path: p, Stat: st}
	if st.kind() == unix.S_IFREG && s.began.Add(-recent).UnixNano() < max(st.Ctime, st.Mtime) {
		// It may change once more without another time.
		e.Hash = s.hash(p, st.Size)
	}
	s.st.entries = append(s.st.entries, e)
	return nil
}

func (s *scanner) hash(p string, size int64) string {
	fd, err := openBeneath(s.root, p, unix.O_RDONLY, 0)
	if err != nil {
		return ""
	}
	f := os.NewFile(uintptr(fd), p)
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, io.LimitReader(f, size+1)); err != nil {
		return ""
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// tooLarge says what takes the room.
func (s *scanner) tooLarge() error {
	files, sizes := map[string]int{}, map[string]int64{}
	for _, e := range s.st.entries {
		top, _, _ := strings.Cut(e.Path, "/")
		files[top]++
		if !e.Stat.dir() {
			sizes[top] += e.Stat.Size
		}
	}
	var names []string
	for name := range files {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		if s.st.bytes > s.opts.MaxBytes && sizes[a] != sizes[b] {
			return int(min(1, max(-1, sizes[b]-sizes[a])))
		}
		return files[b] - files[a]
	})
	var most []string
	for _, name := range names[:min(3, len(names))] {
		most = append(most, fmt.Sprintf("%q (%d files, %d MiB)", name, files[name], sizes[name]>>20))
	}
	return sandbox.Errf(CodeTooLarge, opTake, fmt.Sprintf("the project has more than %d files or %d MiB; the most so far are in %s",
		s.opts.MaxFiles, s.opts.MaxBytes>>20, strings.Join(most, ", ")), "let a .gitignore leave out what sandboxes need not have, or take a smaller directory")
}

// fingerprint names everything that decides what the layer will be.
func (s *scanner) fingerprint() string {
	sum := sha256.New()
	fmt.Fprintf(sum, "layer %d ignored %v\n", layerVersion, s.opts.Ignored)
	for i := range s.st.repos {
		s.st.repos[i].describe(sum)
	}
	for i := range s.st.entries {
		e := &s.st.entries[i]
		writeText(sum, e.Path)
		writeText(sum, e.Hash)
		var b [48]byte
		binary.LittleEndian.PutUint32(b[0:], e.Stat.Mode)
		for i, n := range []uint64{uint64(e.Stat.Size), uint64(e.Stat.Mtime), uint64(e.Stat.Ctime), e.Stat.Ino, e.Stat.Dev} {
			binary.LittleEndian.PutUint64(b[4+8*i:], n)
		}
		sum.Write(b[:])
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// writeText adds a text and its length.
func writeText(w hash.Hash, text string) {
	var n [8]byte
	binary.LittleEndian.PutUint64(n[:], uint64(len(text)))
	w.Write(n[:])
	io.WriteString(w, text)
}

func orDot(p string) string {
	if p == "" {
		return "."
	}
	return p
}
