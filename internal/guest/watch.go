package guest

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/files"
	"github.com/tongs-dev/tongs/internal/tool"
	"github.com/tongs-dev/tongs/sandbox"
)

const (
	watchOp = "watch"
	// What inotify is asked for (inotify(7)); of the root, its own end too.
	watchMask = unix.IN_CREATE | unix.IN_MODIFY | unix.IN_ATTRIB | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_EXCL_UNLINK | unix.IN_ONLYDIR
	rootMask  = watchMask | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
	// quiet is how long nothing must have come for the kernel's queue to count as
	// empty: then the other half of a move won't come any more.
	quiet = 50 * time.Millisecond
	// maxHalves bounds moves of which one half has come, and maxTold paths of
	// which a scan told.
	maxHalves = 1024
	maxTold   = 65_536
)

// fileWatch turns what inotify says into events. One goroutine reads and owns all
// of it but the queue.
type fileWatch struct {
	root   string // absolute, no slash at its end; "" is /
	only   string // the one name in root that is of interest; "" is all
	deep   bool
	filter *tool.Filter
	in     *os.File
	fd     int
	queue  *eventQueue
	ended  func() // releases what was reserved

	rootWD  int32
	paths   map[int32]string // of watched directories
	wds     map[string]int32
	halves  map[uint32]*half // by cookie
	limbo   map[int32]*half  // directories of these
	orphans map[int32]bool   // watched without a path
	told    map[string]bool  // paths told from a look whose own event may still come
}

// half is a move of which only the beginning has come.
type half struct {
	path        string
	dir         bool
	temp, fresh bool
	tree        map[string]int32 // what was watched there, by path below it
	dirty       bool             // something happened in there since
}

// newFileWatch watches what a path names.
func (g *engine) newFileWatch(path string, opts sandbox.WatchOptions) (_ *fileWatch, err error) {
	if path, err = g.path(watchOp, path); err != nil {
		return nil, err
	}
	filter, err := tool.NewFilter(opts.Include, opts.Exclude)
	if err != nil {
		return nil, renamed(watchOp, err)
	}
	if g.watches.Add(1) > sandbox.MaxWatches {
		g.watches.Add(-1)
		return nil, sandbox.Errf(sandbox.CodeTooManyWatches, watchOp, fmt.Sprintf("%d watches are there, and no more are allowed", sandbox.MaxWatches), "close some; one recursive watch can stand for many")
	}
	release := sync.OnceFunc(func() { g.watches.Add(-1) })
	defer func() {
		if err != nil {
			release()
		}
	}()
	w := &fileWatch{
		root: strings.TrimRight(path, "/"), deep: opts.Recursive, filter: filter, queue: newEventQueue(), ended: release,
		paths: map[int32]string{}, wds: map[string]int32{}, halves: map[uint32]*half{}, told: map[string]bool{},
		limbo: map[int32]*half{}, orphans: map[int32]bool{},
	}
	var st unix.Stat_t
	if err := files.Status(path, true, &st); err != nil {
		return nil, pathError(watchOp, path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		// Its directory is watched, so that a file that takes its place is seen.
		w.only, w.deep = w.root[strings.LastIndexByte(w.root, '/')+1:], false
		w.root = strings.TrimSuffix(parent(w.root), "/")
	}
	if w.fd, err = unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK); err != nil {
		return nil, watchError("", err)
	}
	w.in = os.NewFile(uintptr(w.fd), "inotify")
	w.queue.root = w.root + "/"
	if err := w.add(w.root, true, false); err != nil {
		w.in.Close()
		return nil, err
	}
	return w, nil
}

// watchError says which limit was reached.
func watchError(path string, err error) error {
	limit, what := "", ""
	switch {
	case errors.Is(err, unix.ENOSPC):
		limit, what = "max_user_watches", "directories"
	case errors.Is(err, unix.EMFILE):
		limit, what = "max_user_instances", "watches"
	default:
		return pathError(watchOp, path, err)
	}
	most := "a limited number of"
	if b, err := os.ReadFile("/proc/sys/fs/inotify/" + limit); err == nil {
		most = strings.TrimSpace(string(b))
	}
	return sandbox.Errf(sandbox.CodeTooManyWatches, watchOp, fmt.Sprintf("the kernel allows %s %s to be watched (fs.inotify.%s)", most, what, limit),
		"watch less of the tree, exclude large directories, or raise the limit on the host")
}

// add watches a directory, and with deep all below it. tell says that what is in
// it is new. Below the root, what can't be watched because it has gone is no error.
func (w *fileWatch) add(dir string, isRoot, tell bool) error {
	flags, name := unix.O_RDONLY|unix.O_DIRECTORY|openFlags, dir+"/"
	if !isRoot {
		flags, name = flags|unix.O_NOFOLLOW, dir
	}
	fd, err := files.OpenFD(name, flags, 0)
	if err != nil {
		if !isRoot && !errors.Is(err, unix.EMFILE) && !errors.Is(err, unix.ENFILE) {
			return nil // gone, another thing by now, or not ours to read
		}
		return pathError(watchOp, dir, err)
	}
	defer unix.Close(fd)
	if _, again := w.wds[dir]; !again && len(w.paths) >= sandbox.MaxWatchedDirs {
		return sandbox.Errf(sandbox.CodeTooManyWatches, watchOp, fmt.Sprintf("there are more than %d directories", sandbox.MaxWatchedDirs), "watch less of the tree, or exclude large directories")
	}
	mask := uint32(watchMask)
	if isRoot {
		mask = rootMask
	}
	// By the open directory: its path may name another thing already.
	wd, err := unix.InotifyAddWatch(w.fd, descriptorPath(fd), mask)
	if !isRoot && errors.Is(err, unix.ENOENT) {
		return nil // removed since it was opened
	}
	if err != nil {
		return watchError(dir, err)
	}
	if old, ok := w.paths[int32(wd)]; ok && old != dir {
		delete(w.wds, old)
	}
	if isRoot {
		w.rootWD = int32(wd)
	}
	w.paths[int32(wd)], w.wds[dir] = dir, int32(wd)
	if !w.deep && !tell {
		return nil
	}
	// Watched first and looked at then: what comes in between comes twice.
	names, err := readNamesOf(fd)
	if !isRoot && errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return pathError(watchOp, dir, err)
	}
	for _, name := range names {
		var st unix.Stat_t
		if temp, _ := isTemp(name); temp || unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
			continue
		}
		path, isDir := dir+"/"+name, st.Mode&unix.S_IFMT == unix.S_IFDIR
		if tell {
			if len(w.told) >= maxTold {
				clear(w.told)
			}
			w.told[path] = true
			w.emit(sandbox.FileEvent{Type: sandbox.FileCreated, Path: path, Directory: isDir})
		}
		if !isDir || !w.deep || w.filter.Excluded(w.rel(path), name, true) || strings.Count(path, "/") > maxTreeDepth {
			continue
		}
		if err := w.add(path, false, tell); err != nil {
			return err
		}
	}
	return nil
}

func descriptorPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

func (w *fileWatch) rel(path string) string { return path[len(w.root)+1:] }

// emit queues an event, if it is wanted.
func (w *fileWatch) emit(e sandbox.FileEvent) {
	name := baseName(e.Path)
	if w.only != "" && name != w.only || !w.filter.Wanted(w.rel(e.Path), name, e.Directory) {
		return
	}
	w.queue.put(e)
}

// lost tells that events are missing below a path.
func (w *fileWatch) lost(path, why string) {
	if path == "" {
		path = "/"
	}
	w.queue.put(sandbox.FileEvent{Type: sandbox.FileOverflow, Path: path, Directory: true, Reason: why})
}

// run reads until the watch is closed or what is watched has gone.
func (w *fileWatch) run() {
	defer w.queue.end()
	defer w.close()
	buf := make([]byte, 64<<10)
	for {
		var wait time.Time
		if len(w.halves)+len(w.told)+len(w.orphans) > 0 {
			wait = time.Now().Add(quiet)
		}
		if w.in.SetReadDeadline(wait) != nil {
			return
		}
		n, err := w.in.Read(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			w.settle()
			continue
		case err != nil:
			return
		}
		for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			e, rest := parseInotify(b)
			b = rest
			if !w.handle(e) {
				return
			}
		}
	}
}

func (w *fileWatch) close() {
	_ = w.in.Close()
	w.ended()
}
