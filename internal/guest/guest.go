package guest

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/internal/tool"
)

// endTimeout bounds how long the end of a guest takes, whatever hangs.
const endTimeout = 15 * time.Second

// settleDelay is how long after it has begun to serve a guest does what nobody waits for: it says so in its log, and
// the first process of a sandbox catches signals. Until then Go's runtime lets SIGTERM end that, with all that runs.
const settleDelay = 10 * time.Millisecond

// Run serves on the inherited listener until ctx ends, a client asks for the end,
// the lease runs out, or (when Exclusive) SIGTERM or SIGINT comes. All commands
// are dead when it returns, and it has closed the listener. An error says that
// the guest could not begin.
func Run(ctx context.Context, cfg Config, log *slog.Logger) error {
	if err := cfg.setDefaults(); err != nil {
		return err
	}
	if cfg.Incarnation == "" {
		var b [8]byte
		secret(b[:])
		cfg.Incarnation = hex.EncodeToString(b[:])
	}
	if !isID(cfg.Incarnation) {
		return fmt.Errorf("guest: config: incarnation %q is not 1 to 128 of A-Z a-z 0-9 . _ : -", cfg.Incarnation)
	}
	lowered := cfg.limitConnections()
	ln, err := listener(cfg.ListenerFD)
	if err != nil {
		return err
	}
	defer ln.Close()
	// First of all, while there are few threads that have to do it too.
	root := false
	if cfg.Exclusive {
		if root, err = becomeExclusive(&cfg); err != nil {
			return err
		}
	}
	var fk forker = plainForker{}
	if cfg.Cgroup.Version == 1 || cfg.Restrict != nil {
		// The descriptors were opened with the host's rights, and a thread may always put itself there.
		fk = newThreadForker(cfg.Cgroup.TasksFDs, cfg.Restrict)
	}

	s := &server{
		cfg: &cfg, log: log, began: time.Now(), patience: seconds(cfg.Limits.SlowClientSeconds),
		engine: newEngine(&cfg, root, newChildren(cfg.Exclusive, fk)), tokens: newTokens(), listeners: newListeners(),
		stopped: make(chan struct{}), door: door{ln: ln}, conns: map[*net.UnixConn]struct{}{}, live: map[*capnweb.Session]struct{}{},
	}
	if s.engine.meminfo, err = newMeminfo(cfg.Cgroup, s.engine.count); err != nil {
		return fmt.Errorf("guest: show the sandbox's memory: %w", err)
	}
	s.engine.worked = s.worked
	s.worked()
	s.runs = newRuns(&cfg, tool.Call, tool.Env{
		Directory: cfg.Project, Worktree: cfg.Project, Home: cfg.User.Home, OutputDir: cfg.OutputDir,
		Shell: shell{s.engine}, Environ: cfg.baseEnviron(),
		Instructions: new(tool.Instructions), Processors: s.engine.procs.use,
	})
	s.lease = time.AfterFunc(seconds(max(cfg.LeaseSeconds, 1)), func() { s.stop("nobody asked for it during its lease") })
	if cfg.LeaseSeconds < 0 {
		s.lease.Stop()
	}
	defer context.AfterFunc(ctx, func() { s.stop("the context ended") })()
	acceptSignals()
	first := os.Getpid() == 1
	switch {
	case cfg.Exclusive && first:
		dropSignals()
	case cfg.Exclusive:
		defer s.takeSignals()()
	}
	accepted := make(chan error, 1)
	go func() { accepted <- s.acceptAll() }()
	// Somebody waits already, and is served first.
	settled := time.NewTimer(settleDelay)
	defer settled.Stop()
	select {
	case <-settled.C:
	case <-fk.failed():
	case <-s.stopped:
	}
	if cfg.Exclusive && first {
		defer s.takeSignals()()
	}
	if err := s.engine.watchFull(); err != nil {
		log.Warn("a fork bomb may be seen late: no word comes of a full control group", "error", err.Error())
	}
	fk.begin()
	if lowered != nil {
		lowered(log)
	}
	log.Info("the guest serves", "incarnation", cfg.Incarnation, "pid", os.Getpid(), "project", cfg.Project, "cgroup", cfg.Cgroup.Version)
	var failure error
	select {
	case <-fk.failed():
		failure = fk.run(func() {})
		s.stop("commands can't be started")
	case <-s.stopped:
	}
	log.Info("the guest ends", "reason", s.reason)
	s.door.shut()
	err = <-accepted
	end, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	s.close(end)
	return errors.Join(failure, err)
}

func listener(fd int) (*net.UnixListener, error) {
	f := os.NewFile(uintptr(fd), "listener")
	if fd < 0 || f == nil {
		return nil, fmt.Errorf("guest: config: listenerFD %d is no descriptor", fd)
	}
	defer f.Close()
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("guest: config: listenerFD %d: %w", fd, err)
	}
	u, ok := ln.(*net.UnixListener)
	if !ok {
		ln.Close()
		return nil, fmt.Errorf("guest: config: listenerFD %d is a %s listener, not a unix one", fd, ln.Addr().Network())
	}
	return u, nil
}

// ripgrep finds rg where commands would.
func (c *Config) ripgrep() string {
	if c.Ripgrep != "" {
		return c.Ripgrep
	}
	p, err := lookPath("rg", "/", c.baseEnviron())
	if err != nil || !filepath.IsAbs(p) {
		return ""
	}
	return p
}

// becomeExclusive makes the process the guest's own. It reports whether commands
// can be started as another user.
func becomeExclusive(cfg *Config) (root bool, err error) {
	// Nothing that was inherited may reach a command.
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return false, fmt.Errorf("guest: mark descriptors close-on-exec: %w", err)
	}
	unix.Umask(0o022)
	if os.Getpid() != 1 {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return false, fmt.Errorf("guest: become a subreaper: %w", err)
		}
	}
	if os.Geteuid() != 0 {
		return false, nil
	}
	groups := make([]int, len(cfg.User.Groups))
	for i, g := range cfg.User.Groups {
		groups[i] = int(g)
	}
	if now, err := syscall.Getgroups(); err != nil || !slices.Equal(now, groups) { // it is a call in every thread
		if err := syscall.Setgroups(groups); err != nil {
			return false, fmt.Errorf("guest: set groups: %w", err)
		}
	}
	// From here on every file is touched with the user's rights; with them go
	// the capabilities that override permissions. Signals and changing the
	// user of a command need neither.
	err = fsID(unix.SYS_SETFSGID, cfg.User.GID)
	if errors.Is(err, unix.ENOSYS) {
		if err := effectiveIDs(cfg.User); err != nil {
			return false, fmt.Errorf("guest: take the user's rights: %w", err)
		}
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("guest: take the user's group for files: %w", err)
	}
	if err := fsID(unix.SYS_SETFSUID, cfg.User.UID); err != nil {
		return false, fmt.Errorf("guest: take the user's rights for files: %w", err)
	}
	return true, nil
}

// fsID sets a file system id in all threads. The calls never fail, so the result
// is read back.
func fsID(call uintptr, id uint32) error {
	now := func() (uint32, syscall.Errno) { // an id that is none changes nothing
		r, _, errno := syscall.RawSyscall(call, ^uintptr(0), 0, 0)
		return uint32(r), errno
	}
	if is, errno := now(); errno != 0 {
		return errno
	} else if is == id {
		return nil
	}
	if _, _, errno := syscall.AllThreadsSyscall(call, uintptr(id), 0, 0); errno != 0 {
		return errno
	}
	if is, _ := now(); is != id {
		return errors.New("the kernel did not allow it")
	}
	return nil
}

// The arguments of capset, reached by every thread.
var (
	capHeader = unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	capData   [2]unix.CapUserData
)

// effectiveIDs does for a kernel without ids of their own for files, gVisor's, what fsID does: the effective
// ids of all threads become the user's. The real ones stay, and with them the capabilities to become the user
// in commands; the effective ones among those the kernel has taken away for the change, and they are taken
// back.
func effectiveIDs(u User) error {
	if u.UID == 0 {
		return nil
	}
	if err := unix.Capget(&capHeader, &capData[0]); err != nil {
		return err
	}
	const keep = ^uintptr(0)
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_SETRESGID, keep, uintptr(u.GID), keep); errno != 0 {
		return errno
	}
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_SETRESUID, keep, uintptr(u.UID), keep); errno != 0 {
		return errno
	}
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&capHeader)), uintptr(unsafe.Pointer(&capData[0])), 0); errno != 0 {
		return errno
	}
	return nil
}
