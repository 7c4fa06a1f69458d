package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/files"
	"github.com/tongs-dev/tongs/sandbox"
)

// Bounds of what a command may be given. The kernel has its own, which answer
// E2BIG; these keep the guest from collecting what could never be run.
const (
	maxArgBytes = 2 << 20
	maxArgs     = 1 << 16
	maxLabels   = 64
)

// maxID is the most that an id or a name may have, in bytes.
const maxID = 128

// isID reports whether s is an id or a name: 1 to 128 of A-Z a-z 0-9 . _ : -. (A regular expression for it
// took a quarter of the time that a guest has for its start.)
func isID(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'A' <= c && c <= 'Z', 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '.', c == '_', c == ':', c == '-':
		default:
			return false
		}
	}
	return 1 <= len(s) && len(s) <= maxID
}

func invalid(format string, args ...any) error {
	return sandbox.Errf(sandbox.CodeInvalidCommand, "start", fmt.Sprintf(format, args...), "")
}

// startOptions are what a spec leaves open.
type startOptions struct {
	timeout time.Duration
	mode    sandbox.Mode // when the spec has none
	env     []string     // the whole environment, instead of the base with the spec's changes
}

// start checks a spec and starts its program.
func (g *engine) start(spec sandbox.ProcessSpec, opts startOptions) (*process, error) {
	mode := spec.Mode
	if mode == "" {
		mode = opts.mode
	}
	env, err := g.check(&spec, mode)
	if err != nil {
		return nil, err
	}
	if opts.env != nil {
		env = opts.env
	}
	cred, err := g.credential(spec.User)
	if err != nil {
		return nil, err
	}
	dir, opened, err := g.workingDir(spec.Dir)
	if err != nil {
		return nil, err
	}
	defer unix.Close(opened)
	path, err := lookPath(spec.Argv[0], dir, env)
	if err != nil {
		return nil, err
	}
	id, err := g.reserve(spec.ID)
	if err != nil {
		return nil, err
	}
	p := &process{
		g: g, id: id, own: spec.ID != "", argv: slices.Clone(spec.Argv), dir: dir, mode: mode, labels: spec.Labels,
		terminal: spec.Terminal, log: newLog(spec.LogBytes, mode == sandbox.Lossless),
		exited: make(chan struct{}), done: make(chan struct{}),
	}
	// The child changes to the very directory that was looked at, by the
	// descriptor that it still has: a path could lead elsewhere by then, and by
	// way of /proc/self/fd to whatever this process has open.
	attr := &syscall.ProcAttr{Dir: "/proc/self/fd/" + strconv.Itoa(opened), Env: env, Sys: &syscall.SysProcAttr{Setsid: true, Credential: cred}}
	g.confine(attr)
	theirs, err := p.plumb(spec, attr)
	if err != nil {
		g.unreserve(id)
		return nil, err
	}
	g.meminfo.begin()
	// The deadline's timer may fire at once, and the process may end before
	// start returns: both wait for this lock.
	p.mu.Lock()
	p.started = time.Now()
	p.child, err = g.spawnFed(path, spec.Argv, attr, p.reaped)
	closeAll(theirs)
	if err != nil {
		p.mu.Unlock()
		p.unplumb()
		g.unreserve(id)
		if errors.Is(err, unix.EAGAIN) {
			return nil, g.crowded()
		}
		return nil, startError(err, spec.Argv[0])
	}
	if opts.timeout > 0 {
		p.deadline = time.AfterFunc(opts.timeout, func() { p.kill(true) })
	}
	g.enter(p)
	p.mu.Unlock()
	for _, m := range p.pumps {
		g.wg.Go(m.run)
	}
	return p, nil
}

// check validates a spec, fills in its defaults and makes the environment.
func (g *engine) check(spec *sandbox.ProcessSpec, mode sandbox.Mode) ([]string, error) {
	if spec.ID != "" && !isID(spec.ID) {
		return nil, invalid("the id %.140q is not 1 to 128 of A-Z a-z 0-9 . _ : -", spec.ID)
	}
	if len(spec.Argv) == 0 || spec.Argv[0] == "" {
		return nil, invalid("there is no program to run: argv is empty")
	}
	if len(spec.Argv) > maxArgs {
		return nil, invalid("argv has %d elements, the most is %d", len(spec.Argv), maxArgs)
	}
	total := 0
	for i, a := range spec.Argv {
		if strings.IndexByte(a, 0) >= 0 {
			return nil, invalid("argument %d holds a NUL byte, which no program can be given", i)
		}
		total += len(a) + 1
	}
	if total > maxArgBytes {
		return nil, sandbox.Errf(sandbox.CodeInvalidCommand, "start", fmt.Sprintf("the arguments take %d bytes, the most is %d", total, maxArgBytes), "write them to a file or to standard input")
	}
	if mode != sandbox.Lossless && mode != sandbox.Follow {
		return nil, invalid("mode must be %q or %q, it is %.20q", sandbox.Lossless, sandbox.Follow, mode)
	}
	switch n := spec.LogBytes; {
	case n == 0:
		spec.LogBytes = sandbox.DefaultLogBytes
	case n < sandbox.MinLogBytes || n > sandbox.MaxLogBytes:
		return nil, invalid("logBytes must be from %d to %d, it is %d", sandbox.MinLogBytes, sandbox.MaxLogBytes, n)
	}
	if len(spec.Labels) > maxLabels {
		return nil, invalid("there are %d labels, the most is %d", len(spec.Labels), maxLabels)
	}
	if t := spec.Terminal; t != nil && (t.Columns < 1 || t.Columns > 65535 || t.Rows < 1 || t.Rows > 65535) {
		return nil, invalid("a terminal has 1 to 65535 columns and rows, not %d and %d", t.Columns, t.Rows)
	}
	return g.environ(spec.Env, spec.Unset, spec.User == "root", spec.Terminal != nil)
}

// credential says as whom to run.
func (g *engine) credential(user string) (*syscall.Credential, error) {
	u := g.cfg.User
	switch user {
	case "", u.Name:
	case "root":
		if !g.root || !u.Root && !u.AlsoRoot {
			return nil, sandbox.Errf(sandbox.CodePermissionDenied, "start", "commands can't run as root in this sandbox",
				"leave out the user, or make a sandbox that has a root: tongs sandbox create --root")
		}
		return &syscall.Credential{Groups: u.Groups}, nil
	default:
		return nil, invalid("there is no user %.40q; the user is %q", user, u.Name)
	}
	if !g.root {
		return nil, nil
	}
	return &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: u.Groups}, nil
}

func (g *engine) workingDir(dir string) (path string, opened int, err error) {
	if dir == "" {
		dir = g.cfg.Project
	}
	if dir, err = g.path("start", dir); err != nil {
		return "", -1, err
	}
	opened, err = files.OpenFD(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ENOTDIR) {
		return "", -1, sandbox.Errf(sandbox.CodeNotDirectory, "start", fmt.Sprintf("the working directory %q is not a directory", dir), "")
	}
	if err != nil {
		e := pathError("start", dir, err).(*sandbox.Error)
		e.Message = "the working directory: " + e.Message
		return "", -1, e
	}
	return dir, opened, nil
}

// path makes a path absolute: relative ones are in the project.
func (g *engine) path(op, p string) (string, error) {
	switch {
	case p == "":
		return "", sandbox.Errf(sandbox.CodeInvalidPath, op, "the path is empty", "")
	case strings.IndexByte(p, 0) >= 0:
		return "", sandbox.Errf(sandbox.CodeInvalidPath, op, "the path holds a NUL byte", "")
	case len(p) > unix.PathMax:
		return "", sandbox.Errf(sandbox.CodeNameTooLong, op, fmt.Sprintf("the path has %d bytes, the most is %d", len(p), unix.PathMax-1), "")
	case p[0] != '/':
		p = filepath.Join(g.cfg.Project, p)
	}
	// Not cleaned: "a/../b" is what the kernel says it is when a is a link.
	return p, nil
}

// lookPath finds a program as execvp does, in the PATH of the environment that
// it will have.
func lookPath(name, dir string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil // execve, after the change of directory, says the rest
	}
	found := error(sandbox.Errf(sandbox.CodeCommandNotFound, "start", fmt.Sprintf("there is no program %.200q on the PATH", name), "install it in the sandbox, or name its path"))
	for _, d := range filepath.SplitList(getenv(env, "PATH")) {
		if !filepath.IsAbs(d) {
			d = filepath.Join(dir, d)
		}
		p := filepath.Join(d, name)
		st, err := os.Stat(p)
		if err != nil || st.IsDir() {
			continue
		}
		if st.Mode().Perm()&0o111 != 0 {
			return p, nil
		}
		found = sandbox.Errf(sandbox.CodeCommandPermissionDenied, "start", p+" is not executable", "chmod +x it")
	}
	return "", found
}

// startError says why a program could not be started.
func startError(err error, name string) error {
	e := &sandbox.Error{Code: sandbox.CodeCommandExecutionError, Op: "start", Err: err,
		Message: fmt.Sprintf("can't start %.200q: %v", name, err)}
	switch {
	case errors.Is(err, unix.ENOENT):
		e.Code, e.Hint = sandbox.CodeCommandNotFound, "it, or the interpreter its first line names, isn't there"
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		e.Code, e.Hint = sandbox.CodeCommandPermissionDenied, "is it executable for the sandbox's user, on a file system that allows it?"
	case errors.Is(err, unix.ENOTDIR):
		e.Code = sandbox.CodeCommandNotFound
	case errors.Is(err, unix.ENOEXEC):
		e.Hint = "it is no program for this machine; a script needs a first line like #!/bin/sh"
	case errors.Is(err, unix.E2BIG):
		e.Code, e.Hint = sandbox.CodeInvalidCommand, "the arguments and environment are too long (128 KiB each, 2 MiB all); write them to a file or to standard input"
	case errors.Is(err, unix.ENOMEM):
		e.Hint = "the sandbox's memory limit is reached: end something, or remove what is in /tmp, which is in memory"
	}
	return e
}

// plumb makes the three standard descriptors. theirs are the command's ends, to
// be closed once it has been started.
func (p *process) plumb(spec sandbox.ProcessSpec, attr *syscall.ProcAttr) (theirs []int, err error) {
	defer func() {
		if err != nil {
			closeAll(theirs)
			p.unplumb()
			err = sandbox.FileError("start", err)
		}
	}()
	if spec.Terminal != nil {
		return p.plumbTerminal(*spec.Terminal, attr)
	}
	var in, out, errOut int
	if spec.Stdin {
		var w *os.File
		if in, w, err = pipe(1); err != nil {
			return theirs, err
		}
		p.stdin = &stdin{f: w}
	} else if in, err = unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return theirs, &os.PathError{Op: "open", Path: os.DevNull, Err: err}
	}
	theirs = append(theirs, in)
	if out, err = p.outputPipe(sandbox.Stdout, &theirs); err != nil {
		return theirs, err
	}
	errOut = out
	if !spec.Merge {
		if errOut, err = p.outputPipe(sandbox.Stderr, &theirs); err != nil {
			return theirs, err
		}
	}
	attr.Files = []uintptr{uintptr(in), uintptr(out), uintptr(errOut)}
	return theirs, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

func (p *process) outputPipe(stream sandbox.Stream, theirs *[]int) (int, error) {
	w, r, err := pipe(0)
	if err != nil {
		return -1, err
	}
	p.pumps = append(p.pumps, newPump(p, r, stream))
	*theirs = append(*theirs, w)
	return w, nil
}

// pipe makes a pipe of which one end (0 reads, 1 writes) is ours and therefore
// non-blocking; the command's must be an ordinary one.
func pipe(end int) (theirs int, ours *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return -1, nil, os.NewSyscallError("pipe2", err)
	}
	theirs = fds[1-end]
	if _, err := unix.FcntlInt(uintptr(theirs), unix.F_SETFL, 0); err != nil { // no other flag is set
		closeAll(fds[:])
		return -1, nil, os.NewSyscallError("fcntl", err)
	}
	return theirs, os.NewFile(uintptr(fds[end]), "pipe"), nil
}

func (p *process) unplumb() {
	for _, m := range p.pumps {
		m.f.Close()
	}
	if p.stdin != nil {
		p.stdin.close()
	}
}
