package guest

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/files"
	"github.com/tongs-dev/tongs/sandbox"
)

const writeTreeOp = "write tree"

// maxLateDirs bounds the directories whose mode and time are set at the end. Those
// beyond it get their mode at once, and what is written into them sets their time.
const maxLateDirs = 100_000

// treeSink writes a tree below a directory. Every part of a name is opened by
// itself, from the directory above it, and never through a link: there is no way
// out of the root, whatever is exchanged meanwhile.
type treeSink struct {
	path string
	root int
	opts sandbox.WriteTreeOptions
	out  sandbox.TreeResult
	late []lateDir

	last   string // the directory that was used last, below the root
	lastFD int    // its descriptor; -1 is none

	f    *regular // the file that is being written
	name string   // its name
	temp string   // what it is called while it is written; "" is by its name
	dir  int      // where
	left int64
	h    sandbox.TreeHeader
}

type lateDir struct {
	name  string
	mode  uint32
	mtime int64
}

func (g *engine) createTree(dir string, opts sandbox.WriteTreeOptions) (*treeSink, error) {
	dir, err := g.path(writeTreeOp, dir)
	if err != nil {
		return nil, err
	}
	if err := files.MkdirAll(dir, 0o777); err != nil {
		return nil, sandbox.FileError(writeTreeOp, err)
	}
	root, err := files.OpenFD(dir, unix.O_RDONLY|unix.O_DIRECTORY|openFlags, 0)
	if err != nil {
		return nil, pathError(writeTreeOp, dir, err)
	}
	return &treeSink{path: strings.TrimRight(dir, "/"), root: root, opts: opts, lastFD: -1, dir: -1}, nil
}

func (t *treeSink) close() {
	t.abandon()
	if t.lastFD >= 0 {
		unix.Close(t.lastFD)
	}
	unix.Close(t.root)
}

// abandon removes a file that is not whole.
func (t *treeSink) abandon() {
	if t.f == nil {
		return
	}
	t.f.Close()
	name := t.temp
	if name == "" {
		name = t.name
	}
	_ = unix.Unlinkat(t.dir, name, 0)
	t.f = nil
}

func (t *treeSink) fail(name string, err error) error {
	return pathError(writeTreeOp, t.path+"/"+name, err)
}

// through is the error for a name that leads through a link.
func (t *treeSink) through(name string) error {
	return sandbox.Errf(sandbox.CodeUnsafeArchive, writeTreeOp, t.path+"/"+name+" leads through a symbolic link, or through what is no directory", "write to another directory, or remove what is in the way")
}

// open opens a directory below the root, and makes it if it is not there. The
// descriptor belongs to the sink until the next call.
func (t *treeSink) open(name string) (int, error) {
	if name == "" {
		return t.root, nil
	}
	if name == t.last && t.lastFD >= 0 {
		return t.lastFD, nil
	}
	fd := t.root
	done := func() {
		if fd != t.root {
			unix.Close(fd)
		}
	}
	for part := range strings.SplitSeq(name, "/") {
		next, err := openSubdir(fd, part)
		if errors.Is(err, unix.ENOENT) {
			if err = unix.Mkdirat(fd, part, 0o777); err == nil || errors.Is(err, unix.EEXIST) {
				next, err = openSubdir(fd, part)
			}
		}
		if err != nil {
			done()
			if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
				return -1, t.through(name)
			}
			return -1, t.fail(name, err)
		}
		done()
		fd = next
	}
	if t.lastFD >= 0 {
		unix.Close(t.lastFD)
	}
	t.last, t.lastFD = name, fd
	return fd, nil
}

// openSubdir opens a directory by its name in another; a link is no directory. openat2 says that in so many
// words: gVisor's openat follows a link when a directory is asked for, whatever O_NOFOLLOW says.
func openSubdir(dir int, name string) (int, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | openFlags
	fd, err := unix.Openat2(dir, name, &unix.OpenHow{Flags: flags, Resolve: unix.RESOLVE_NO_SYMLINKS})
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) { // or a filter that doesn't know the call
		return unix.Openat(dir, name, flags, 0)
	}
	return fd, err
}

func splitName(path string) (dir, name string) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path
	}
	return path[:i], path[i+1:]
}

// begin takes an entry; after a file its content has to follow.
func (t *treeSink) begin(h sandbox.TreeHeader) error {
	name := string(h.Name)
	if err := sandbox.CheckTreeName(name); err != nil {
		return err
	}
	dirName, base := splitName(name)
	h.Mode &= 0o1777
	if h.Type == sandbox.TreeDirectory {
		return t.directory(name, h)
	}
	dir, err := t.open(dirName)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	exists := true
	switch err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); {
	case errors.Is(err, unix.ENOENT):
		exists = false
	case err != nil:
		return t.fail(name, err)
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return t.fail(name, unix.EISDIR)
	case !t.opts.Overwrite:
		return t.fail(name, unix.EEXIST)
	}
	switch h.Type {
	case sandbox.TreeFile:
		return t.file(dir, name, base, exists, h)
	case sandbox.TreeSymlink:
		target := string(h.Target)
		if err := sandbox.CheckTreeLink(name, target); err != nil && (!t.opts.LinksOut || sandbox.CodeOf(err) != sandbox.CodeUnsafeArchive) {
			return err
		}
		return t.link(dir, name, base, exists, func(as string) error { return unix.Symlinkat(target, dir, as) })
	case sandbox.TreeHardlink:
		return t.hardlink(dirName, name, base, exists, string(h.Target))
	}
	return sandbox.Errf(sandbox.CodeInvalidArgument, writeTreeOp, "an entry of an unknown type came", "")
}

func (t *treeSink) directory(name string, h sandbox.TreeHeader) error {
	fd, err := t.open(name)
	if err != nil {
		return err
	}
	t.out.Directories++
	if len(t.late) < maxLateDirs {
		t.late = append(t.late, lateDir{name, h.Mode, h.Modified})
		return nil
	}
	if err := unix.Fchmod(fd, h.Mode|0o700); err != nil {
		return t.fail(name, err)
	}
	return nil
}

func (t *treeSink) file(dir int, name, base string, exists bool, h sandbox.TreeHeader) error {
	if h.Size < 0 {
		return sandbox.Errf(sandbox.CodeInvalidArgument, writeTreeOp, "the size of an entry is negative", "")
	}
	as := base
	if exists {
		as = tempName("/x", false)[1:]
	}
	fd, err := unix.Openat(dir, as, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|openFlags, 0o600)
	if err != nil {
		return t.fail(name, err)
	}
	t.f, t.name, t.temp, t.dir, t.left, t.h = &regular{fd: fd, path: t.path + "/" + name}, base, "", dir, h.Size, h
	if exists {
		t.temp = as
	}
	if t.left == 0 {
		return t.whole()
	}
	return nil
}

// write takes a piece of the current file's content.
func (t *treeSink) write(data []byte) error {
	if t.f == nil || int64(len(data)) > t.left {
		return sandbox.Errf(sandbox.CodeInvalidArgument, writeTreeOp, "more content came than was said", "")
	}
	if _, err := t.f.Write(data); err != nil {
		return renamed(writeTreeOp, err)
	}
	t.left -= int64(len(data))
	t.out.Bytes += int64(len(data))
	if t.left == 0 {
		return t.whole()
	}
	return nil
}

// whole puts the current file in place.
func (t *treeSink) whole() error {
	if err := setAttributes(writeTreeOp, t.f.path, t.f.fd, t.h.Mode, unix.NsecToTimespec(t.h.Modified)); err != nil {
		return err
	}
	if t.temp != "" {
		if err := unix.Renameat(t.dir, t.temp, t.dir, t.name); err != nil {
			return pathError(writeTreeOp, t.f.path, err)
		}
	}
	t.f.Close()
	t.f = nil
	t.out.Files++
	return nil
}

// link makes a link, in one step if there is something in the way.
func (t *treeSink) link(dir int, name, base string, exists bool, make func(as string) error) error {
	as := base
	if exists {
		as = tempName("/x", false)[1:]
	}
	if err := make(as); err != nil {
		return t.fail(name, err)
	}
	if exists {
		if err := unix.Renameat(dir, as, dir, base); err != nil {
			_ = unix.Unlinkat(dir, as, 0)
			return t.fail(name, err)
		}
		_ = unix.Unlinkat(dir, as, 0) // a rename onto itself does nothing
	}
	t.out.Links++
	return nil
}

func (t *treeSink) hardlink(dirName, name, base string, exists bool, target string) error {
	if err := sandbox.CheckTreeName(target); err != nil {
		return err
	}
	if name == target {
		return sandbox.Errf(sandbox.CodeInvalidArchive, writeTreeOp, t.path+"/"+name+" is a link to itself", "")
	}
	targetDir, targetBase := splitName(target)
	shared, err := t.open(targetDir)
	if err != nil {
		return err
	}
	from, err := unix.FcntlInt(uintptr(shared), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return t.fail(name, err)
	}
	defer unix.Close(from)
	var st unix.Stat_t
	if err := unix.Fstatat(from, targetBase, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return t.fail(target, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return sandbox.Errf(sandbox.CodeUnsafeArchive, writeTreeOp, t.path+"/"+name+" is a hard link to what is no regular file", "")
	}
	dir, err := t.open(dirName)
	if err != nil {
		return err
	}
	return t.link(dir, name, base, exists, func(as string) error { return unix.Linkat(from, targetBase, dir, as, 0) })
}

// finish sets the modes and times of directories, those inside first.
func (t *treeSink) finish() error {
	if t.f != nil {
		return sandbox.Errf(sandbox.CodeInvalidArgument, writeTreeOp, "the content of a file is not whole", "")
	}
	for _, d := range slices.Backward(t.late) {
		fd, err := t.open(d.name)
		if err != nil {
			return err
		}
		if err := setAttributes(writeTreeOp, t.path+"/"+d.name, fd, d.mode, unix.NsecToTimespec(d.mtime)); err != nil {
			return err
		}
	}
	return nil
}

// serveWriteTree takes a tree: entries, each with its content, and an end.
func (s *server) serveWriteTree(conn *net.UnixConn, t *treeSink) {
	defer t.close()
	r, w := sandbox.NewFrameReader(conn), sandbox.NewFrameWriter(conn)
	for {
		kind, data, err := r.Next()
		if err != nil {
			return // the client went away, or gave up
		}
		switch kind {
		case sandbox.FrameEntry:
			var h sandbox.TreeHeader
			if t.f != nil || json.Unmarshal(data, &h) != nil {
				err = sandbox.Errf(sandbox.CodeInvalidArgument, writeTreeOp, "an entry came where none can be", "")
				break
			}
			err = t.begin(h)
		case sandbox.FrameData:
			err = t.write(data)
		case sandbox.FrameEnd:
			if err = t.finish(); err == nil {
				_ = w.WriteJSON(sandbox.FrameEnd, t.out)
				return
			}
		default:
			err = sandbox.Errf(sandbox.CodeInvalidArgument, writeTreeOp, "a frame of an unknown kind came", "")
		}
		if err != nil {
			t.abandon() // before it is told
			if w.WriteError(renamed(writeTreeOp, err)) == nil {
				_ = conn.CloseWrite()
				_ = conn.SetReadDeadline(time.Now().Add(s.patience))
				_, _ = io.Copy(io.Discard, conn)
			}
			return
		}
	}
}
