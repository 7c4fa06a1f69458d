package guest

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"

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
	l := &lister{ctx: ctx, opts: opts}
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
	names, err := readNames(path)
	if err != nil {
		if len(l.names) > 0 {
			return nil // below the root, what can't be read or has gone is empty
		}
		return pathError(op, path, err)
	}
	for _, name := range names {
		if name[0] == '.' && !l.opts.Hidden {
			continue
		}
		var inside []string
		seen := false
		if len(after) > 0 {
			if name < after[0] {
				continue
			}
			if name == after[0] {
				seen, inside = true, after[1:]
			}
		}
		var st unix.Stat_t
		if files.Status(path+name, false, &st) != nil {
			continue // gone meanwhile
		}
		l.names = append(l.names, name)
		if !seen {
			if len(l.out.Entries) == l.opts.Limit {
				return errPageFull
			}
			fi := info(path+name, &st)
			if fi.Type == sandbox.TypeSymlink {
				fi.Target, _ = files.Readlink(path + name)
			}
			l.out.Entries = append(l.out.Entries, fi)
			if len(l.out.Entries) == l.opts.Limit {
				l.out.Next = strings.Join(l.names, "/")
			}
		}
		if l.opts.Recursive && st.Mode&unix.S_IFMT == unix.S_IFDIR {
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

// readNames reads a directory's names, sorted.
func readNames(path string) ([]string, error) {
	fd, err := files.OpenFD(path, unix.O_RDONLY|unix.O_DIRECTORY|openFlags, 0)
	if err != nil {
		return nil, err
	}
	d := os.NewFile(uintptr(fd), path)
	defer d.Close()
	var all []string
	for {
		names, err := d.Readdirnames(4096)
		all = append(all, names...)
		if len(all) > maxDirEntries {
			return nil, unix.EMFILE
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(all)
	return all, nil
}
