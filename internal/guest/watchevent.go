package guest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/files"
	"github.com/tongs-dev/tongs/sandbox"
)

// inotifyEvent is struct inotify_event, with its name.
type inotifyEvent struct {
	wd           int32
	mask, cookie uint32
	name         string
}

// parseInotify takes the first event off; b has at least the fixed part of one.
func parseInotify(b []byte) (e inotifyEvent, rest []byte) {
	e.wd = int32(binary.NativeEndian.Uint32(b))
	e.mask, e.cookie = binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[8:])
	n := int(binary.NativeEndian.Uint32(b[12:]))
	b = b[unix.SizeofInotifyEvent:]
	n = min(n, len(b))
	name, _, _ := bytes.Cut(b[:n], []byte{0})
	e.name = string(name)
	return e, b[n:]
}

// handle makes events of what the kernel said. It is false when the watch is over.
func (w *fileWatch) handle(e inotifyEvent) bool {
	if e.mask&unix.IN_Q_OVERFLOW != 0 {
		w.lost(w.root, "the kernel's queue was full (fs.inotify.max_queued_events)")
		w.addAgain()
		return true
	}
	dir, known := w.paths[e.wd]
	if e.mask&unix.IN_IGNORED != 0 {
		delete(w.paths, e.wd)
		delete(w.limbo, e.wd)
		delete(w.orphans, e.wd)
		if w.wds[dir] == e.wd {
			delete(w.wds, dir)
		}
		return e.wd != w.rootWD
	}
	if !known {
		if h := w.limbo[e.wd]; h != nil {
			h.dirty = true
		}
		return true
	}
	gone := e.mask&(unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_UNMOUNT) != 0
	if e.name == "" && e.mask&unix.IN_ATTRIB != 0 {
		// While somebody has it open, a directory that was removed is not gone.
		var st unix.Stat_t
		gone = errors.Is(files.Status(w.root+"/", true, &st), unix.ENOENT)
	}
	if e.wd == w.rootWD && gone {
		kind := sandbox.FileDeleted
		if e.mask&unix.IN_MOVE_SELF != 0 {
			kind = sandbox.FileMovedFrom
		}
		path := w.root
		if w.only != "" {
			path += "/" + w.only
		}
		w.queue.put(sandbox.FileEvent{Type: kind, Path: path, Directory: w.only == ""})
		return false
	}
	if e.name == "" {
		return true // about the directory itself: its own has told
	}
	path, isDir := dir+"/"+e.name, e.mask&unix.IN_ISDIR != 0
	if temp, fresh := isTemp(e.name); temp {
		// A file that is being written beside another: only its end counts.
		if e.mask&unix.IN_MOVED_FROM != 0 {
			w.begin(e.cookie, &half{path: path, dir: isDir, temp: true, fresh: fresh})
		}
		return true
	}
	ev := sandbox.FileEvent{Path: path, Directory: isDir}
	switch {
	case e.mask&unix.IN_CREATE != 0:
		if w.told[path] {
			delete(w.told, path)
			return true
		}
		ev.Type = sandbox.FileCreated
		w.emit(ev)
		w.arrived(path, isDir)
	case e.mask&unix.IN_MOVED_TO != 0:
		w.movedTo(ev, e.cookie)
	case e.mask&unix.IN_MOVED_FROM != 0:
		w.untell(path, isDir)
		ev.Type, ev.Cookie = sandbox.FileMovedFrom, e.cookie
		w.emit(ev)
		w.begin(e.cookie, &half{path: path, dir: isDir})
	case e.mask&unix.IN_DELETE != 0:
		w.untell(path, isDir)
		ev.Type = sandbox.FileDeleted
		w.emit(ev)
		if isDir {
			w.forget(path)
		}
	case e.mask&unix.IN_MODIFY != 0:
		ev.Type = sandbox.FileChanged
		w.emit(ev)
	case e.mask&unix.IN_ATTRIB != 0:
		ev.Type = sandbox.FileAttrib
		w.emit(ev)
	}
	return true
}

// Events tell what was, and looking at a directory tells what is: the two don't
// agree while events wait. So what a look has found is trusted until an event
// about the same path contradicts it, and a directory that was moved is taken for
// the one it was only if it is the same inode. Else it is looked at anew, and all
// that is in it is told: a reader may hear of a file twice, but never not at all.

// arrived watches a directory that is new at its path, and tells what is in it.
func (w *fileWatch) arrived(path string, isDir bool) {
	if !isDir || !w.deep || w.filter.Excluded(w.rel(path), baseName(path), true) {
		return
	}
	if err := w.add(path, false, true); err != nil {
		w.lost(path, err.Error())
	}
}

// begin remembers the first half of a move, and takes away what is watched at its
// path: something else may be there soon.
func (w *fileWatch) begin(cookie uint32, h *half) {
	if len(w.halves) >= maxHalves {
		w.settle()
	}
	w.halves[cookie] = h
	if !h.dir || !w.deep {
		return
	}
	h.tree = map[string]int32{}
	for path, wd := range w.wds {
		if within(h.path, path) {
			h.tree[path[len(h.path):]] = wd
			w.limbo[wd] = h
			delete(w.wds, path)
			delete(w.paths, wd)
		}
	}
}

func (w *fileWatch) movedTo(ev sandbox.FileEvent, cookie uint32) {
	h := w.halves[cookie]
	delete(w.halves, cookie)
	told := w.told[ev.Path]
	if w.untell(ev.Path, ev.Directory); told && h != nil && h.temp {
		return
	}
	if h == nil {
		h = &half{}
	}
	for _, wd := range h.tree {
		delete(w.limbo, wd)
	}
	if h.temp {
		// Written beside and put in place: that is one step.
		if ev.Type = sandbox.FileChanged; h.fresh {
			ev.Type = sandbox.FileCreated
		}
		w.emit(ev)
		w.arrived(ev.Path, ev.Directory)
		return
	}
	ev.Type, ev.Cookie = sandbox.FileMovedTo, cookie
	same := true
	if ev.Directory && w.deep {
		w.forget(ev.Path) // an empty directory may have been replaced
		root, watched := h.tree[""]
		same = watched && !told && !h.dirty && w.watchedAs(ev.Path) == root
	}
	if same && h.path != "" && w.only == "" && w.filter.Wanted(w.rel(h.path), baseName(h.path), h.dir) {
		ev.From = h.path
	}
	w.emit(ev)
	if !ev.Directory || !w.deep {
		return
	}
	if same {
		// The watches went with it: only the paths change.
		for rel, wd := range h.tree {
			w.wds[ev.Path+rel], w.paths[wd] = wd, ev.Path+rel
		}
		return
	}
	for _, wd := range h.tree {
		w.orphans[wd] = true
	}
	w.arrived(ev.Path, true)
}

// untell takes back what was told at a path, and below it if it is a directory.
func (w *fileWatch) untell(path string, isDir bool) {
	delete(w.told, path)
	if !isDir {
		return
	}
	for p := range w.told {
		if within(path, p) {
			delete(w.told, p)
		}
	}
}

// watchedAs gives the number under which the directory at a path is watched; -1 if
// it can't be.
func (w *fileWatch) watchedAs(path string) int32 {
	fd, err := files.OpenFD(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|openFlags, 0)
	if err != nil {
		return -1
	}
	defer unix.Close(fd)
	wd, err := unix.InotifyAddWatch(w.fd, descriptorPath(fd), watchMask)
	if err != nil {
		return -1
	}
	if _, known := w.paths[int32(wd)]; !known {
		w.orphans[int32(wd)] = true // if nobody takes it
	}
	return int32(wd)
}

// within reports whether path is dir or below it.
func within(dir, path string) bool {
	return strings.HasPrefix(path, dir) && (len(path) == len(dir) || path[len(dir)] == '/')
}

func baseName(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// forget drops what is watched at and below a path.
func (w *fileWatch) forget(dir string) {
	for path, wd := range w.wds {
		if within(dir, path) {
			delete(w.wds, path)
			delete(w.paths, wd)
			w.orphans[wd] = true
		}
	}
}

// settle is for when nothing more waits in the kernel: moves without a second half
// have left the tree, what was told has been heard of, and what is watched without
// a path is let go.
func (w *fileWatch) settle() {
	clear(w.halves)
	clear(w.told)
	for wd := range w.limbo {
		w.orphans[wd] = true
	}
	clear(w.limbo)
	for wd := range w.orphans {
		if _, taken := w.paths[wd]; !taken {
			_, _ = unix.InotifyRmWatch(w.fd, uint32(wd))
		}
	}
	clear(w.orphans)
}

// addAgain watches everything anew after events were lost.
func (w *fileWatch) addAgain() {
	clear(w.halves)
	clear(w.told)
	for wd := range w.limbo {
		w.orphans[wd] = true
	}
	clear(w.limbo)
	w.forget(w.root)
	if err := w.add(w.root, true, false); err != nil {
		w.lost(w.root, err.Error())
	}
}
