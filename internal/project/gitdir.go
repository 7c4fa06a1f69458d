package project

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

// repositories makes the git directories.
func (b *builder) repositories() error {
	for i := range b.st.repos {
		if err := b.repository(&b.st.repos[i]); err != nil {
			return fmt.Errorf("repository %q: %w", b.st.repos[i].Prefix, err)
		}
	}
	return nil
}

func (b *builder) repository(r *repo) error {
	at := gitPath(r.Prefix)
	parent, err := openBeneath(b.tree, orDot(r.Prefix), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	if err := unix.Mkdirat(parent, ".git", 0o755); err != nil {
		return err
	}
	// Nobody but this process has been in there, so from here on plain paths do.
	dir := filepath.Join(b.l.Root(), inside, at)
	for _, d := range []string{"objects", "objects/pack", "objects/info", "refs", "refs/heads", "refs/tags", "info"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	if r.Plain {
		r.Format, r.Head = "sha1", "refs/heads/main"
	}
	write := func(name, data string) error {
		return os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644)
	}
	head := r.Commit
	if r.Head != "" {
		head = "ref: " + r.Head
	}
	if err := write("HEAD", head+"\n"); err != nil {
		return err
	}
	if err := write("config", r.config()); err != nil {
		return err
	}
	var packed strings.Builder
	packed.WriteString("# pack-refs with: sorted \n")
	for _, ref := range r.Refs {
		if ref.Symbolic == "" {
			fmt.Fprintf(&packed, "%s %s\n", ref.Object, ref.Name)
			continue
		}
		if err := os.MkdirAll(filepath.Join(dir, path.Dir(ref.Name)), 0o755); err != nil {
			return err
		}
		if err := write(ref.Name, "ref: "+ref.Symbolic+"\n"); err != nil {
			return err
		}
	}
	if err := write("packed-refs", packed.String()); err != nil {
		return err
	}
	for name, data := range r.Files {
		if err := write(name, string(data)); err != nil {
			return err
		}
	}
	if r.Plain {
		return nil
	}
	out, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(out)
	own, err := unix.Open(r.Dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return errMoved
	}
	defer unix.Close(own)
	if r.Index != (stat{}) {
		for _, name := range append([]string{"index"}, r.Shared...) {
			if err := b.part(own, out, -1, name); err != nil {
				return err
			}
		}
	}
	old := -1
	if b.old >= 0 {
		if fd, err := openBeneath(b.old, at+"/objects", unix.O_RDONLY|unix.O_DIRECTORY, 0); err == nil {
			old = fd
			defer unix.Close(fd)
		}
	}
	for _, objects := range append([]string{filepath.Join(r.Common, "objects")}, r.Alternates...) {
		if err := b.objects(objects, filepath.Join(dir, "objects"), old); err != nil {
			return err
		}
	}
	return nil
}

var (
	looseDir  = regexp.MustCompile(`^[0-9a-f]{2}$`)
	looseName = regexp.MustCompile(`^([0-9a-f]{38}|[0-9a-f]{62})$`)
	packName  = regexp.MustCompile(`^pack-[0-9a-f]{40,64}\.(pack|idx|rev|promisor)$`)
)

// objects copies the objects of one directory of them. Loose ones come first: one that is packed meanwhile is
// in a pack that is listed later.
func (b *builder) objects(from, to string, old int) error {
	source, err := unix.Open(from, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(source)
	names, err := listAt(source, ".")
	if err != nil {
		return err
	}
	for _, d := range append(names, "pack") {
		match := looseName
		if d == "pack" {
			match = packName
		} else if !looseDir.MatchString(d) {
			continue
		}
		if err := b.objectDir(source, to, old, d, match); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) objectDir(source int, to string, old int, d string, match *regexp.Regexp) error {
	in, err := openBeneath(source, d, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(in)
	if err := os.Mkdir(filepath.Join(to, d), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	out, err := unix.Open(filepath.Join(to, d), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(out)
	before := -1
	if old >= 0 {
		if before, err = openBeneath(old, d, unix.O_RDONLY|unix.O_DIRECTORY, 0); err == nil {
			defer unix.Close(before)
		} else {
			before = -1
		}
	}
	names, err := listAt(in, ".")
	if err != nil {
		return err
	}
	for _, name := range names {
		if !match.MatchString(name) {
			continue
		}
		if err := b.part(in, out, before, name); err != nil {
			if d != "pack" && errors.Is(err, errMoved) {
				continue // packed meanwhile
			}
			return err
		}
	}
	return nil
}

// part copies one file of a git directory, or links it from the layer before.
func (b *builder) part(source, target, old int, name string) error {
	if err := b.ctx.Err(); err != nil {
		return err
	}
	st, err := statAt(source, name)
	if err != nil || st.kind() != unix.S_IFREG {
		return errMoved
	}
	if old >= 0 {
		if was, err := statAt(old, name); err == nil && was.kind() == unix.S_IFREG && was.Size == st.Size && was.Mtime == st.Mtime {
			if unix.Linkat(old, name, target, name, 0) == nil {
				return b.counted(0)
			}
		}
	}
	fd, err := openBeneath(source, name, unix.O_RDONLY, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) {
		return errMoved
	}
	if err == nil && !b.mayRead(st) {
		unix.Close(fd)
		err = unix.EACCES
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: ".git/…/" + name, Err: err}
	}
	in := os.NewFile(uintptr(fd), name)
	defer in.Close()
	st.Mode = 0o644
	whole, err := b.file(in, target, name, st)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil // an object that an alternate has, too
	case err != nil:
		return err
	case !whole:
		return errMoved
	}
	return b.counted(st.Size)
}

// counted adds to what the layer holds.
func (b *builder) counted(bytes int64) error {
	b.l.Files++
	b.l.Bytes += bytes
	if b.l.Files > b.sc.opts.MaxFiles || b.l.Bytes > b.sc.opts.MaxBytes {
		b.st.entries = append(b.st.entries, entry{Path: ".git", Stat: stat{Size: b.l.Bytes - b.st.bytes}})
		b.sc.st = b.st
		b.st.bytes = b.l.Bytes
		return b.sc.tooLarge()
	}
	return nil
}

func listAt(dir int, name string) ([]string, error) {
	fd, err := openBeneath(dir, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	return f.Readdirnames(-1)
}

// config is the configuration that the repository has in sandboxes.
func (r *repo) config() string {
	var b bytes.Buffer
	set := func(key, value string) {
		first, last := strings.IndexByte(key, '.'), strings.LastIndexByte(key, '.')
		if first == last {
			fmt.Fprintf(&b, "[%s]\n", key[:first])
		} else {
			fmt.Fprintf(&b, "[%s \"%s\"]\n", key[:first], strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(key[first+1:last]))
		}
		fmt.Fprintf(&b, "\t%s = \"%s\"\n", key[last+1:], strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\t", `\t`).Replace(value))
	}
	version := "0"
	if r.Format != "sha1" {
		version = "1"
	}
	for _, s := range r.Config {
		if strings.HasPrefix(s.Key, "extensions.") {
			version = "1"
		}
	}
	set("core.repositoryformatversion", version)
	set("core.bare", "false")
	set("core.logallrefupdates", "true")
	// The copy of a file has its time and its size, and another inode.
	set("core.checkstat", "minimal")
	set("core.trustctime", "false")
	if r.Format != "sha1" {
		set("extensions.objectformat", r.Format)
	}
	for _, s := range r.Config {
		set(s.Key, s.Value)
	}
	return b.String()
}

// base makes the commit of the state that was taken. Its index is kept for the sandbox, which finds out with it
// what has changed since.
func (b *builder) base() error {
	r := &b.st.repos[0]
	tree := filepath.Join(b.l.Root(), inside)
	dir := filepath.Join(tree, ".git")
	g := ourGit(b.sc.program, dir, tree)
	index := filepath.Join(b.l.Root(), insideOwn, baseIndex)
	a := &b.l.about
	a.Format, a.Commit, a.Branch, a.Plain = r.Format, r.Commit, strings.TrimPrefix(r.Head, "refs/heads/"), r.Plain
	when := "GIT_AUTHOR_DATE=" + b.l.Created.UTC().Format("2006-01-02T15:04:05Z")
	g = g.with(when, strings.Replace(when, "AUTHOR", "COMMITTER", 1))
	if r.Index != (stat{}) {
		if err := copyPlain(filepath.Join(dir, "index"), index); err != nil {
			return err
		}
	}
	taken, err := g.with("GIT_INDEX_FILE=" + index).takeTree(b.ctx)
	if err != nil {
		return err
	}
	args := []string{"commit-tree", taken, "-m", "The files of " + filepath.Base(b.sc.top) + " as they were"}
	if r.Commit != "" {
		args = append(args, "-p", r.Commit)
	}
	if a.Base, err = g.line(b.ctx, args...); err != nil {
		return err
	}
	if !validOID.MatchString(a.Base) {
		return fmt.Errorf("git gives %.80q for a commit", a.Base)
	}
	if !r.Plain {
		return nil
	}
	a.Branch = ""
	if err := os.WriteFile(filepath.Join(dir, "refs/heads/main"), []byte(a.Base+"\n"), 0o644); err != nil {
		return err
	}
	if _, err := os.Stat(index); errors.Is(err, fs.ErrNotExist) {
		return nil // there are no files
	}
	return copyPlain(index, filepath.Join(dir, "index"))
}

// copyPlain copies a file of ours, and its time: git goes by how old an index is.
func copyPlain(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o644)
	}
	if err == nil {
		err = os.Chtimes(to, info.ModTime(), info.ModTime())
	}
	return err
}
