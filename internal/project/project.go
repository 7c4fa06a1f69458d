package project

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/idmap"
	"github.com/tongs-dev/tongs/sandbox"
)

const opTake = "take project"

// Codes that only projects have.
const (
	// CodeTooLarge: the project has more files or bytes than are taken; the message says where they are.
	CodeTooLarge sandbox.Code = "PROJECT_TOO_LARGE"
	// CodeGone: there is no such layer (any more).
	CodeGone sandbox.Code = "PROJECT_GONE"
	// CodeUnsafe: what a sandbox wants to bring out is refused; the message says what.
	CodeUnsafe sandbox.Code = "PROJECT_UNSAFE"
	// CodeFailed: git failed; the message has what it said.
	CodeFailed sandbox.Code = "PROJECT_FAILED"
	// CodeNone: the sandbox was not made from a project.
	CodeNone sandbox.Code = "NO_PROJECT"
)

// Default bounds of what is taken, history included.
const (
	DefaultMaxFiles = 500_000
	DefaultMaxBytes = 16 << 30
)

// rounds is how often a project that changes while it is taken is looked at again.
const rounds = 3

// layerVersion is raised when the same project comes to make another layer.
const layerVersion = 1

// The place of a project in a sandbox, and who owns it there.
const (
	inside    = "home/user/project"
	insideOwn = "home/user/.local/share/tongs" // what only pulls and diffs need
	baseIndex = "project.index"
	userID    = 1000
)

// Options say what is taken.
type Options struct {
	Dir string // of the user's
	// Ignored takes what git ignores, too.
	Ignored bool
	// Map is that of the images on which the layer lies: image.Root.Map.
	Map idmap.Map
	// MaxFiles and MaxBytes bound it. Default DefaultMaxFiles and DefaultMaxBytes.
	MaxFiles int
	MaxBytes int64
	// Progress, if set, is told how far the copying is, at most some times a second.
	Progress func(Progress)
}

// Progress is how far the copying of a project is. What the layer before has already is counted as copied.
type Progress struct {
	Files, AllFiles int
	Bytes, AllBytes int64
}

// Store keeps layers, each in a directory of its own below one that belongs to Tongs.
type Store struct {
	dir, home string
	busy      chan struct{} // one Take at a time: the others get what it made
}

// Open gives the layers that are kept below home, $TONGS_HOME.
func Open(home string) *Store {
	return &Store{dir: filepath.Join(home, "projects"), home: home, busy: make(chan struct{}, 1)}
}

// Layer is a layer that is held: it is not removed before Close.
type Layer struct {
	ID string
	about
	dir  string
	lock *os.File
}

// about is what is kept of a layer.
type about struct {
	Version int       `json:"version"`
	Dir     string    `json:"dir"` // that was taken
	Ignored bool      `json:"ignored"`
	Map     idmap.Map `json:"map,omitzero"` // whose ids its files have; none: those that they have inside, or this user's
	Print   string    `json:"print"`        // "" of one that fits no look
	Format  string    `json:"format"`       // of objects
	Base    string    `json:"base"`         // the commit of the state that was taken; its tree has the uncommitted changes
	Commit  string    `json:"commit"`       // that was checked out, "" before the first one, and for what was no repository
	Branch  string    `json:"branch"`       // "" when none was checked out
	Plain   bool      `json:"plain"`        // it was no repository
	Files   int       `json:"files"`
	Bytes   int64     `json:"bytes"`
	Notes   []string  `json:"notes"` // for people: what was left out, and why
	Created time.Time `json:"created"`
}

// Root is the directory to put on top of an image.
func (l *Layer) Root() string { return filepath.Join(l.dir, "root") }

// Close lets go of it.
func (l *Layer) Close() {
	if l.lock != nil {
		unlock(l.lock)
		l.lock = nil
	}
}

// unlock ends a lock. Closing alone would not, as long as a child that was just forked has a copy of the
// descriptor.
func unlock(f *os.File) {
	_ = unix.Flock(int(f.Fd()), unix.LOCK_UN)
	f.Close()
}

// Names in the directory of a layer.
const (
	aboutFile    = "layer.json"
	manifestFile = "manifest"
	newPrefix    = ".new-"
	gonePrefix   = ".gone-"
	bringPrefix  = ".bring-" // of a Work
)

var validID = regexp.MustCompile(`^[a-z0-9]{26}$`)

// Take gives a layer with the project's files as they are now: one that is there already when nothing has changed since.
// The caller closes it once a sandbox that has it is recorded.
func (s *Store) Take(ctx context.Context, opts Options) (*Layer, error) {
	select {
	case s.busy <- struct{}{}:
		defer func() { <-s.busy }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if opts.MaxFiles <= 0 {
		opts.MaxFiles = DefaultMaxFiles
	}
	if opts.MaxBytes <= 0 {
		opts.MaxBytes = DefaultMaxBytes
	}
	sc, err := s.scanner(ctx, opts)
	if err != nil {
		return nil, err
	}
	defer unix.Close(sc.root)
	l, err := s.take(sc)
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return l, takeError(err)
}

// takeError gives an error its code and operation.
func takeError(err error) error {
	var done *sandbox.Error
	if err == nil || errors.As(err, &done) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	e := &sandbox.Error{Code: CodeFailed, Op: opTake, Message: err.Error(), Err: err}
	switch {
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		e.Code, e.Hint = sandbox.CodeNoSpace, "free some space on the file system that holds TONGS_HOME, or let a .gitignore leave out what sandboxes need not have"
	case errors.Is(err, fs.ErrPermission):
		e.Code, e.Hint = sandbox.CodePermissionDenied, "run tongs as the user whose project it is"
	case errors.Is(err, fs.ErrNotExist):
		e.Code = sandbox.CodeFileNotFound
	}
	return e
}

// errBound marks errors about bounds, which no part of a project gets around.
var errBound = &sandbox.Error{Code: CodeTooLarge}

// scanner opens the project's directory and says what cannot be one.
func (s *Store) scanner(ctx context.Context, opts Options) (*scanner, error) {
	program, err := findGit()
	if err != nil {
		return nil, err
	}
	wrong := func(message, hint string) error {
		return sandbox.Errf(sandbox.CodeInvalidArgument, opTake, message, hint)
	}
	abs, err := filepath.Abs(opts.Dir)
	if err != nil {
		return nil, takeError(err)
	}
	top, err := filepath.EvalSymlinks(abs)
	if err != nil {
		return nil, takeError(err)
	}
	fd, err := unix.Open(top, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOTDIR) {
		return nil, wrong(top+" is no directory", "name the directory of a project")
	}
	if err != nil {
		return nil, takeError(&fs.PathError{Op: "open", Path: top, Err: err})
	}
	sc := &scanner{ctx: ctx, program: program, top: top, root: fd, opts: opts}
	if err := s.fit(sc, wrong); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return sc, nil
}

// fit says what cannot be a project.
func (s *Store) fit(sc *scanner, wrong func(message, hint string) error) (err error) {
	if sc.owner, err = statFile(sc.root); err != nil {
		return takeError(err)
	}
	home, err := filepath.EvalSymlinks(s.home)
	if err == nil {
		if rel, err := filepath.Rel(home, sc.top); err == nil && filepath.IsLocal(rel) {
			return wrong(sc.top+" is in Tongs' own directory", "name the directory of a project")
		}
		if rel, err := filepath.Rel(sc.top, home); err == nil && filepath.IsLocal(rel) {
			sc.home = rel
		}
	}
	switch {
	case sc.top == "/":
		return wrong("/ is no project", "name a directory below it")
	case slices.Contains(strings.Split(sc.top, "/"), ".git"):
		return wrong(sc.top+" is in a .git directory", "name the directory that has it")
	}
	if _, err := statAt(sc.root, ".git"); err == nil {
		return nil
	}
	g, err := usersGit(sc.program, sc.top, sc.owner)
	if err != nil {
		return err
	}
	if above, err := g.line(sc.ctx, "rev-parse", "--show-toplevel"); err == nil && above != "" {
		return wrong(sc.top+" is a part of the repository in "+above, "name that directory; or make this one a repository of its own: git -C "+sc.top+" init")
	}
	if bare, err := g.line(sc.ctx, "rev-parse", "--is-bare-repository"); err == nil && bare == "true" {
		return wrong(sc.top+" is a bare repository", "clone it, and name the clone")
	}
	return nil
}

func (s *Store) take(sc *scanner) (*Layer, error) {
	st, err := sc.scan()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	found, prev, err := s.find(sc, st)
	if err != nil || found != nil {
		return found, err
	}
	for round := 1; ; round++ {
		l, changed, err := s.build(sc, st, prev)
		if prev != nil {
			prev.Close()
		}
		if err != nil && (round == rounds || !errors.Is(err, errMoved)) {
			return nil, err
		}
		now, serr := sc.scan()
		if serr != nil {
			if l != nil {
				s.drop(l)
			}
			return nil, serr
		}
		switch {
		case err != nil: // objects that moved while they were copied
			prev = nil
		case len(changed) == 0 && now.print == st.print:
			return l, s.finish(l, st.print)
		case round == rounds:
			l.Notes = append(l.Notes, fmt.Sprintf("the project changed while it was copied, %d times in a row; what a sandbox has may be of different moments%s", rounds, some(changed)))
			return l, s.finish(l, "")
		default:
			prev = l // most of it can be used again
			defer s.drop(l)
		}
		st = now
	}
}

// some names some paths.
func some(paths []string) string {
	if len(paths) == 0 {
		return ""
	}
	const most = 5
	text := fmt.Sprintf(": %q", paths[:min(most, len(paths))])
	if len(paths) > most {
		text += fmt.Sprintf(" and %d more", len(paths)-most)
	}
	return text
}

// find looks for a layer of that state, and else for the newest one of the directory.
func (s *Store) find(sc *scanner, st *state) (found, prev *Layer, err error) {
	all, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range all {
		if !validID.MatchString(e.Name()) {
			continue
		}
		l, err := s.Get(e.Name())
		if err != nil {
			continue // on its way out, or damaged
		}
		switch {
		case l.Dir != sc.top || l.Ignored != sc.opts.Ignored || !l.Map.Equal(sc.opts.Map):
			l.Close()
		case l.Print == st.print:
			if prev != nil {
				prev.Close()
			}
			return l, nil, nil
		case prev == nil || l.Created.After(prev.Created):
			if prev != nil {
				prev.Close()
			}
			prev = l
		default:
			l.Close()
		}
	}
	return nil, prev, nil
}

// Get holds the layer of that id. One that is not there, or on its way out, is PROJECT_GONE.
func (s *Store) Get(id string) (*Layer, error) {
	const op = "find project"
	gone := func(err error) error {
		return &sandbox.Error{Code: CodeGone, Op: op, Message: fmt.Sprintf("there are no files of a project with the id %.40q", id), Hint: "take the project again; nothing of the directory itself is lost", Err: err}
	}
	if !validID.MatchString(id) {
		return nil, gone(nil)
	}
	dir := filepath.Join(s.dir, id)
	held, err := lock(dir)
	if errors.Is(err, fs.ErrPermission) {
		return nil, &sandbox.Error{Code: sandbox.CodePermissionDenied, Op: op, Message: err.Error(), Hint: "be the user who runs `tongs up`", Err: err}
	}
	if err != nil {
		return nil, gone(err)
	}
	l := &Layer{ID: id, dir: dir, lock: held}
	data, err := os.ReadFile(filepath.Join(dir, aboutFile)) // by the name: it may be gone since it was opened
	if err == nil {
		err = json.Unmarshal(data, &l.about)
	}
	if err == nil && (l.Version != layerVersion || !validOID.MatchString(l.Base) || l.Commit != "" && !validOID.MatchString(l.Commit)) {
		err = errors.New("it is of another version of tongs, or damaged")
	}
	if err != nil {
		l.Close()
		return nil, gone(err)
	}
	return l, nil
}

// lock keeps a directory from being removed until what it gives is closed.
func lock(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, &fs.PathError{Op: "lock", Path: dir, Err: err}
	}
	return f, nil
}

// finish gives a layer its name, by which others find it.
func (s *Store) finish(l *Layer, print string) error {
	l.Print = print
	data, err := json.Marshal(l.about)
	if err == nil {
		err = os.WriteFile(filepath.Join(l.dir, aboutFile), data, 0o600)
	}
	final := filepath.Join(s.dir, l.ID)
	if err == nil {
		err = os.Rename(l.dir, final)
	}
	if err != nil {
		s.drop(l)
		return err
	}
	l.dir = final
	return nil
}

// drop removes a layer that was never finished.
func (s *Store) drop(l *Layer) {
	_ = removeAll(context.Background(), l.Map, l.dir) // what is left of it, GC removes
	l.Close()
}

// GC removes the layers that nobody holds and no sandbox has, and what was never finished. used gives the ids that
// sandboxes have; it is asked after the layers have been locked, so that none is taken up meanwhile.
func (s *Store) GC(ctx context.Context, used func(context.Context) (map[string]bool, error)) (removed int, err error) {
	all, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, takeError(err)
	}
	held := map[string]*os.File{}
	defer func() {
		for _, f := range held {
			unlock(f)
		}
	}()
	for _, e := range all {
		name := e.Name()
		if !validID.MatchString(name) && !slices.ContainsFunc([]string{newPrefix, gonePrefix, bringPrefix}, func(p string) bool { return strings.HasPrefix(name, p) }) {
			continue
		}
		f, err := os.Open(filepath.Join(s.dir, name))
		if err != nil {
			continue
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
			f.Close()
			continue
		}
		held[name] = f
	}
	if len(held) == 0 {
		return 0, nil
	}
	inUse, err := used(ctx)
	if err != nil {
		return 0, err
	}
	var errs []error
	m, _ := idmap.Find() // without one everything is this user's
	for name := range held {
		if ctx.Err() != nil {
			return removed, ctx.Err()
		}
		if inUse[name] {
			continue
		}
		at := filepath.Join(s.dir, name)
		if validID.MatchString(name) {
			gone := filepath.Join(s.dir, gonePrefix+name)
			if err := os.Rename(at, gone); err != nil {
				errs = append(errs, err)
				continue
			}
			at = gone
		}
		if err := removeAll(ctx, m, at); err != nil {
			errs = append(errs, err)
			continue
		}
		removed++
	}
	return removed, takeError(errors.Join(errs...))
}

// removeAll removes a tree of ours, some of whose directories may not be writable, or be those of other ids of ours.
func removeAll(ctx context.Context, m idmap.Map, dir string) error {
	if err := os.RemoveAll(dir); err == nil {
		return nil
	}
	if !m.None() {
		return idmap.RemoveAll(context.WithoutCancel(ctx), m, dir)
	}
	_ = filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			return os.Chmod(p, 0o700)
		}
		return nil
	})
	return os.RemoveAll(dir)
}

// gitPath is where a repository is in the tree of the project.
func gitPath(prefix string) string { return path.Join(prefix, ".git") }
