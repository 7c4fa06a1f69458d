package guest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/files"
	"github.com/tongs-dev/tongs/sandbox"
)

const (
	defaultPage   = 1000
	maxPage       = 10_000
	maxDirEntries = 1 << 20 // of one directory; more is refused
)

// lister walks a directory in the order of its paths, name by name, and collects
// one page.
type lister struct {
	ctx    context.Context
	opts   sandbox.ListOptions
	pages  *namesCache
	cursor []string // names of the last entry of the page before
	out    sandbox.ListResult
	names  []string // where the walk is
}

var errPageFull = errors.New("the page is full")

func (g *engine) listFiles(ctx context.Context, path string, opts sandbox.ListOptions) (*sandbox.ListResult, error) {
	const op = "list"
	path, err := g.path(op, path)
	if err != nil {
		return nil, err
	}
	switch {
	case opts.Limit < 0 || opts.Limit > maxPage:
		return nil, sandbox.Errf(sandbox.CodeInvalidArgument, op, "limit must be from 0 to 10000", "ask for the next page with the cursor")
	case opts.Limit == 0:
		opts.Limit = defaultPage
	}
	l := &lister{ctx: ctx, opts: opts, pages: &g.pages}
	l.out.Entries = []sandbox.FileInfo{}
	if opts.Cursor != "" {
		l.cursor = strings.Split(opts.Cursor, "/")
	}
	root := strings.TrimRight(path, "/")
	if err := l.dir(root+"/", l.cursor); err != nil && !errors.Is(err, errPageFull) {
		return nil, err
	}
	return &l.out, nil
}

// dir lists one directory, whose path ends in a slash. after are the names, from
// here on, of the last entry that was given already.
func (l *lister) dir(path string, after []string) error {
	const op = "list"
	if err := l.ctx.Err(); err != nil {
		return err
	}
	d, err := files.OpenFD(path, unix.O_RDONLY|unix.O_DIRECTORY|openFlags, 0)
	var names []string
	if err == nil {
		defer unix.Close(d)
		names, err = l.pages.names(d)
	}
	if err != nil {
		if len(l.names) > 0 && !errors.Is(err, unix.EMFILE) {
			return nil // below the root, what can't be read or has gone is empty
		}
		return pathError(op, path, err)
	}
	if len(after) > 0 {
		first, _ := slices.BinarySearch(names, after[0])
		names = names[first:]
	}
	for i, name := range names {
		if i&0xff == 0xff && l.ctx.Err() != nil {
			return l.ctx.Err()
		}
		if name[0] == '.' && !l.opts.Hidden {
			continue
		}
		var inside []string
		seen := len(after) > 0 && name == after[0]
		if seen {
			inside = after[1:]
		}
		// A single name below an open directory: there is no link to follow.
		var st unix.Stat_t
		if unix.Fstatat(d, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
			continue // gone meanwhile
		}
		l.names = append(l.names, name)
		if !seen {
			if len(l.out.Entries) == l.opts.Limit {
				return errPageFull
			}
			fi := info(path+name, &st)
			if fi.Type == sandbox.TypeSymlink {
				fi.Target = linkTarget(d, name)
			}
			l.out.Entries = append(l.out.Entries, fi)
			if len(l.out.Entries) == l.opts.Limit {
				l.out.Next = strings.Join(l.names, "/")
			}
		}
		if l.opts.Recursive && st.Mode&unix.S_IFMT == unix.S_IFDIR && len(l.names) < maxTreeDepth {
			if err := l.dir(path+name+"/", inside); err != nil {
				return err
			}
		}
		l.names = l.names[:len(l.names)-1]
	}
	if len(l.names) == 0 {
		l.out.Next = "" // nothing was left over
	}
	return nil
}

func linkTarget(dir int, name string) string {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		return ""
	}
	return string(buf[:n])
}

// readNames reads a directory's names, sorted.
func readNames(path string) ([]string, error) {
	fd, err := files.OpenFD(path, unix.O_RDONLY|unix.O_DIRECTORY|openFlags, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return readNamesOf(fd)
}

// readNamesOf reads the names of an open directory that has not been read yet.
func readNamesOf(fd int) ([]string, error) {
	var all []string
	buf := make([]byte, 32<<10)
	for {
		var n int
		err := noEINTR(func() (err error) { n, err = unix.ReadDirent(fd, buf); return })
		if err != nil {
			return nil, err
		}
		if n <= 0 {
			break
		}
		_, _, all = unix.ParseDirent(buf[:n], -1, all)
		if len(all) > maxDirEntries {
			return nil, unix.EMFILE
		}
	}
	slices.Sort(all)
	return all, nil
}

// A namesCache keeps the names of large directories that are listed page by page,
// so that each page costs itself and not the directory. It holds few, and not for
// long; a directory that has changed is another one.
type namesCache struct {
	mu    sync.Mutex
	held  []dirNames // the oldest first
	total int
	timer *time.Timer
}

type dirNames struct {
	key   dirKey
	names []string
}

type dirKey struct {
	dev, ino     uint64
	mtime, ctime unix.Timespec
}

const (
	largeDir       = 2048    // names; smaller ones are read again
	maxCachedNames = 1 << 18 // of all directories together
	namesLife      = 15 * time.Second
	// settled is how long ago a directory must have changed for its time to
	// tell whether it changes again.
	settled = 100 * time.Millisecond
)

// names gives the names of an open directory, sorted. They are not to be changed.
func (c *namesCache) names(fd int) ([]string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	key := dirKey{uint64(st.Dev), st.Ino, st.Mtim, st.Ctim}
	c.mu.Lock()
	i := slices.IndexFunc(c.held, func(d dirNames) bool { return d.key == key })
	if i >= 0 {
		names := c.held[i].names
		c.mu.Unlock()
		return names, nil
	}
	c.mu.Unlock()
	began := time.Now()
	names, err := readNamesOf(fd)
	if err != nil || len(names) < largeDir || len(names) > maxCachedNames ||
		began.Sub(time.Unix(st.Ctim.Unix())) < settled {
		return names, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = slices.DeleteFunc(c.held, func(d dirNames) bool {
		same := d.key.dev == key.dev && d.key.ino == key.ino
		if same {
			c.total -= len(d.names)
		}
		return same
	})
	for len(c.held) > 0 && c.total+len(names) > maxCachedNames {
		c.total -= len(c.held[0].names)
		c.held = slices.Delete(c.held, 0, 1)
	}
	c.held, c.total = append(c.held, dirNames{key, names}), c.total+len(names)
	if c.timer == nil {
		c.timer = time.AfterFunc(namesLife, c.forget)
	} else {
		c.timer.Reset(namesLife)
	}
	return names, nil
}

// forget gives all of it back.
func (c *namesCache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held, c.total = nil, 0
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
}
