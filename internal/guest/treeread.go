package guest

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/files"
	"github.com/tongs-dev/tongs/internal/tool"
	"github.com/tongs-dev/tongs/sandbox"
)

const readTreeOp = "read tree"

// treeSource sends a tree as entries.
type treeSource struct {
	ctx    context.Context
	path   string // absolute
	clean  string // the directory, lexically clean; "" is /
	root   int    // descriptor of the directory, or of the one that holds the file
	single string // the file's name
	filter *tool.Filter
	rules  *tool.IgnoreRules
	w      *sandbox.FrameWriter
	buf    []byte
}

// openTree checks what can be checked before the reading begins.
func (g *engine) openTree(path string, opts sandbox.TreeOptions) (_ *treeSource, err error) {
	if path, err = g.path(readTreeOp, path); err != nil {
		return nil, err
	}
	t := &treeSource{path: strings.TrimRight(path, "/")}
	if t.filter, err = tool.NewFilter(opts.Include, opts.Exclude); err != nil {
		return nil, renamed(readTreeOp, err)
	}
	var st unix.Stat_t
	if err := files.Status(path, true, &st); err != nil {
		return nil, pathError(readTreeOp, path, err)
	}
	dir := path
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
	case unix.S_IFREG:
		dir, t.single = parent(t.path), baseName(t.path)
	default:
		return nil, notRegular(readTreeOp, path, st.Mode)
	}
	if t.clean = filepath.Clean(dir); t.clean == "/" {
		t.clean = ""
	}
	if opts.Ignored {
		t.rules = tool.NewIgnoreRules(context.Background(), t.clean, g.cfg.User.Home, g.cfg.baseEnviron())
	}
	if t.root, err = files.OpenFD(dir+"/", unix.O_RDONLY|unix.O_DIRECTORY|openFlags, 0); err != nil {
		return nil, pathError(readTreeOp, dir, err)
	}
	return t, nil
}

func (t *treeSource) close() { unix.Close(t.root) }

func (s *server) serveTree(conn *net.UnixConn, t *treeSource) {
	defer t.close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	t.ctx = ctx
	b := bufio.NewWriterSize(conn, 64<<10)
	t.w = sandbox.NewFrameWriter(b)
	pooled := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(pooled)
	t.buf = *pooled
	var err error
	if t.single != "" {
		err = t.entry(t.root, t.single, t.single, t.rules, 0, true)
	} else {
		err = t.dir(t.root, "", t.rules, 0)
	}
	var e *sandbox.Error
	switch {
	case err == nil:
		err = t.w.Write(sandbox.FrameEnd, nil)
	case errors.As(err, &e):
		err = t.w.WriteError(err)
	}
	if err == nil {
		_ = b.Flush()
	}
}

// dir sends what is in an open directory. rel is its path, with a slash at its end
// unless it is "".
func (t *treeSource) dir(fd int, rel string, rules *tool.IgnoreRules, depth int) error {
	names, err := readNamesOf(fd)
	if err != nil {
		return pathError(readTreeOp, t.path+"/"+rel, err)
	}
	if depth > 0 {
		rules = rules.Below(strings.TrimSuffix(t.clean+"/"+rel, "/"), names)
	}
	for _, name := range names {
		if err := t.entry(fd, name, rel+name, rules, depth, false); err != nil {
			return err
		}
	}
	return nil
}

func (t *treeSource) entry(dir int, name, rel string, rules *tool.IgnoreRules, depth int, follow bool) error {
	var st unix.Stat_t
	flags := unix.AT_SYMLINK_NOFOLLOW
	if follow {
		flags = 0 // what was asked for by name; it is no magic link, as its directory was opened
	}
	if err := unix.Fstatat(dir, name, &st, flags); errors.Is(err, unix.ENOENT) {
		return nil // gone meanwhile
	} else if err != nil {
		return pathError(readTreeOp, t.path+"/"+rel, err)
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if temp, _ := isTemp(name); temp || rules.Ignored(t.clean+"/"+rel, name, isDir) || t.filter.Excluded(rel, name, isDir) ||
		!isDir && !t.filter.Wanted(rel, name, isDir) {
		return nil
	}
	h := sandbox.TreeHeader{Name: []byte(rel), Mode: st.Mode & 0o1777, Modified: st.Mtim.Nano()}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		h.Type, h.Target = sandbox.TreeSymlink, []byte(linkTarget(dir, name))
		if len(h.Target) == 0 {
			return nil
		}
		return t.w.WriteJSON(sandbox.FrameEntry, h)
	case unix.S_IFREG:
		return t.file(dir, name, rel, h, follow)
	case unix.S_IFDIR:
	default:
		return nil
	}
	if depth >= maxTreeDepth || len(rel) >= sandbox.MaxTreeName {
		return pathError(readTreeOp, t.path+"/"+rel, unix.ENAMETOOLONG)
	}
	h.Type = sandbox.TreeDirectory
	if err := t.w.WriteJSON(sandbox.FrameEntry, h); err != nil {
		return err
	}
	fd, err := openSubdir(dir, name)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil // another thing by now
	}
	if err != nil {
		return pathError(readTreeOp, t.path+"/"+rel, err)
	}
	defer unix.Close(fd)
	return t.dir(fd, rel+"/", rules, depth+1)
}

// file sends a file: as many bytes as were said.
func (t *treeSource) file(dir int, name, rel string, h sandbox.TreeHeader, follow bool) error {
	flags := unix.O_RDONLY | openFlags
	if !follow {
		flags |= unix.O_NOFOLLOW
	}
	fd, err := unix.Openat(dir, name, flags, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	if err != nil {
		return pathError(readTreeOp, t.path+"/"+rel, err)
	}
	f := &regular{fd: fd, path: t.path + "/" + rel}
	defer f.Close()
	if err := unix.Fstat(fd, &f.st); err != nil || f.st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	h.Type, h.Size = sandbox.TreeFile, f.st.Size
	if err := t.w.WriteJSON(sandbox.FrameEntry, h); err != nil {
		return err
	}
	for left, ended := h.Size, false; left > 0; {
		piece := t.buf[:min(left, int64(len(t.buf)))]
		n := 0
		if !ended {
			if n, err = f.Read(piece); errors.Is(err, io.EOF) {
				ended = true
			} else if err != nil {
				return err
			}
		}
		if ended {
			clear(piece)
			n = len(piece)
		}
		if err := t.w.Write(sandbox.FrameData, piece[:n]); err != nil {
			return err
		}
		left -= int64(n)
	}
	return nil
}
