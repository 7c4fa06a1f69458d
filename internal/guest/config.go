package guest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"
)

// BootFDEnv names the environment variable that tells tongs-guest on which
// inherited file descriptor its Boot document waits. The number may also be
// given as the only argument.
const BootFDEnv = "TONGS_BOOT_FD"

// MaxBootBytes is the most that a Boot document may take.
const MaxBootBytes = 1 << 20

// Boot is what tongs-guest reads, as one JSON document, from an inherited file
// descriptor before it does anything else. The descriptor is closed afterwards.
type Boot struct {
	// Setup is handed unread to the driver's half inside the sandbox, which
	// assembles mounts, drops capabilities and returns. Absent or null: the
	// process is already where it should be.
	Setup json.RawMessage `json:"setup,omitempty"`

	// Guest says how to serve.
	Guest Config `json:"guest"`
}

// Config is everything a guest needs to know. File descriptors are numbers of
// inherited, open descriptors; -1 is none, and so is 0 where 0 makes no sense.
type Config struct {
	// ListenerFD is an inherited unix stream socket that is already listening.
	ListenerFD int `json:"listenerFD"`

	// User is who commands run as, and with whose rights files are touched.
	User User `json:"user"`

	// Project is the directory in which commands start and against which
	// relative paths are resolved. Default /home/user/project.
	Project string `json:"project,omitempty"`

	// Env is the whole environment of commands, as KEY=value; HOME, USER,
	// LOGNAME, SHELL, PATH, LANG and TMPDIR are added where it has none.
	// Nothing of the guest's own environment reaches a command.
	Env []string `json:"env,omitempty"`

	// OutputDir is where tools keep the full text of what they cut.
	// Default /tmp/opencode/output.
	OutputDir string `json:"outputDir,omitempty"`

	// Ripgrep is the path of rg, if the sandbox has one. Default: looked up
	// in the PATH that commands get.
	Ripgrep string `json:"ripgrep,omitempty"`

	// Cgroup is where commands are put. The guest itself stays outside, so
	// that the limits of the commands can't end it.
	Cgroup Cgroup `json:"cgroup,omitzero"`

	// LeaseSeconds is how long the guest lives without any RPC session.
	// Default 86,400 (24 h); negative is for ever.
	LeaseSeconds int64 `json:"leaseSeconds,omitempty"`

	// ListenPath, optional: where the listener is bound, if the guest has made it itself and may make
	// it again there (sandbox.Client.Suspend).
	ListenPath string `json:"listenPath,omitempty"`

	// LogFD receives the guest's own log, as JSON lines. Default 2. It must
	// not be a pipe to the host: nobody may be reading it any more.
	LogFD int `json:"logFD,omitempty"`

	// Incarnation names this life of the sandbox; a handle from another one
	// is refused. Default: 16 random hex digits.
	Incarnation string `json:"incarnation,omitempty"`

	// Limits replaces the default bounds; zero fields keep theirs.
	Limits Limits `json:"limits,omitzero"`

	// Exclusive says that the process is the guest's own: it reaps every
	// child, changes to the user's rights for files, and takes the signals.
	// tongs-guest sets it. Without it, which is for tests, commands run as the
	// process does, and other code in it may have children of its own.
	Exclusive bool `json:"-"`

	// Restrict is called once on the thread that starts all commands, before the
	// first: what it does to that thread holds for them, and not for the guest.
	// Nil is nothing.
	Restrict func() error `json:"-"`

	// Version is what the guest says it is.
	Version string `json:"-"`
}

// User is an account inside the sandbox.
type User struct {
	// Name, default "user"; Home, default /home/user; Shell, default
	// /bin/bash: what USER, HOME and SHELL say.
	Name  string `json:"name,omitempty"`
	Home  string `json:"home,omitempty"`
	Shell string `json:"shell,omitempty"`

	// UID and GID are numeric ids in the sandbox's own user namespace,
	// default 1000. When the guest doesn't run as root they are ignored:
	// commands then run as the guest does.
	UID uint32 `json:"uid,omitempty"`
	GID uint32 `json:"gid,omitempty"`

	// Root asks for uid and gid 0, which the zero values above can't.
	Root bool `json:"root,omitempty"`

	// AlsoRoot lets a command ask for uid and gid 0 (sandbox.ProcessSpec.User
	// "root") where the guest itself runs as root.
	AlsoRoot bool `json:"alsoRoot,omitempty"`

	// Groups are supplementary group ids; default none.
	Groups []uint32 `json:"groups,omitempty"`
}

// Cgroup says how a command enters the control groups that limit it.
type Cgroup struct {
	// Version is 0 (none), 1 or 2.
	Version int `json:"version,omitempty"`

	// TasksFDs, for version 1: descriptors, open for writing, of one `tasks`
	// file for each controller. One thread of the guest writes itself into
	// all of them once and then does all forking; the descriptors are closed.
	TasksFDs []int `json:"tasksFDs,omitempty"`

	// DirFD, for version 2: descriptor of the group's directory (O_PATH
	// will do); every command is cloned straight into it.
	DirFD int `json:"dirFD,omitempty"`

	// Tasks, optional: how many processes and threads the group may have.
	// Known, it lets the guest see a fork bomb before nothing can be started.
	Tasks int64 `json:"tasks,omitempty"`

	// PidsFD, optional: descriptor, open for reading, of the group's
	// pids.events. The kernel tells there when a process had no place, and
	// the guest looks at once for a fork bomb that a command has left.
	PidsFD int `json:"pidsFD,omitempty"`

	// OOMFD, optional: descriptor, open for reading, of memory.oom_control
	// (version 1) or memory.events (version 2). When its oom_kill counter
	// grew while a command was killed, the exit says so.
	OOMFD int `json:"oomFD,omitempty"`

	// MeminfoFD, optional: descriptor, open for writing, of the file that
	// shows as /proc/meminfo in the sandbox, which the guest keeps. A driver's
	// half inside the sandbox may make it, and fill this in.
	MeminfoFD int `json:"meminfoFD,omitempty"`

	// Memory is how many bytes that file says there are: the group's limit.
	Memory int64 `json:"memory,omitempty"`

	// UsageFD and StatFD, for version 1 and MeminfoFD: descriptors, open for
	// reading, of memory.usage_in_bytes and memory.stat. In version 2 the guest
	// opens them in DirFD.
	UsageFD int `json:"usageFD,omitempty"`
	StatFD  int `json:"statFD,omitempty"`
}

// Limits are the guest's own bounds. They keep a hostile or forgetful client
// and a hostile sandbox from growing the guest without end.
type Limits struct {
	// Connections is the most that are open at a time. Default 4096; one more
	// is answered ERR TOO_MANY_CONNECTIONS and closed, and nothing happens to
	// those there are. A dialled one takes six descriptors, so where the
	// process may not have enough of them (RLIMIT_NOFILE, of which the guest
	// takes all that it may) the most is lower, and the log says so.
	Connections int `json:"connections,omitempty"`

	// Sessions is how many of them may be RPC sessions. Default 64; one more
	// is answered in the same way.
	Sessions int `json:"sessions,omitempty"`

	// Processes is the most that run at a time. Default 4096.
	Processes int `json:"processes,omitempty"`

	// FinishedProcesses is how many ended processes are remembered with what
	// is left of their logs. Default 256, for at most FinishedSeconds
	// (default 600), with at most FinishedBytes of log (default 16 MiB).
	FinishedProcesses int   `json:"finishedProcesses,omitempty"`
	FinishedSeconds   int64 `json:"finishedSeconds,omitempty"`
	FinishedBytes     int64 `json:"finishedBytes,omitempty"`

	// FinishedRuns is how many ended tool runs are remembered. Default 1024,
	// for at most FinishedSeconds, with at most FinishedRunBytes of results
	// (default 64 MiB).
	FinishedRuns     int   `json:"finishedRuns,omitempty"`
	FinishedRunBytes int64 `json:"finishedRunBytes,omitempty"`

	// Runs is how many tool runs may be under way. Default 256.
	Runs int `json:"runs,omitempty"`

	// OrphanSeconds is how long a lossless command waits with a full log for
	// a reader that went away, and a tool run for an answer to its question,
	// before the one drops its oldest output and the other fails.
	// Default 600.
	OrphanSeconds int64 `json:"orphanSeconds,omitempty"`

	// SlowClientSeconds is how long a client may leave a raw connection's
	// control traffic unread before it is dropped. Output of commands is not
	// control traffic: its reader may take all the time it wants.
	// Default 30.
	SlowClientSeconds int64 `json:"slowClientSeconds,omitempty"`
}

// ReadBoot reads and checks a Boot document: one JSON object, no unknown keys,
// nothing after it, at most MaxBootBytes.
func ReadBoot(r io.Reader) (Boot, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxBootBytes+1))
	if err != nil {
		return Boot{}, fmt.Errorf("guest: boot document: %w", err)
	}
	if len(data) > MaxBootBytes {
		return Boot{}, fmt.Errorf("guest: boot document is larger than %d bytes", MaxBootBytes)
	}
	b, ok := plainBoot(data)
	if !ok {
		b = Boot{}
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&b); err != nil {
			return Boot{}, fmt.Errorf("guest: boot document: %w", err)
		}
		if _, err := dec.Token(); !errors.Is(err, io.EOF) {
			return Boot{}, errors.New("guest: boot document: something follows the JSON object")
		}
	}
	if err := b.Guest.setDefaults(); err != nil {
		return Boot{}, err
	}
	return b, nil
}

func (c *Config) setDefaults() error {
	def := func(p *string, v string) {
		if *p == "" {
			*p = v
		}
	}
	def(&c.User.Name, "user")
	def(&c.User.Home, "/home/user")
	def(&c.User.Shell, "/bin/bash")
	def(&c.Project, "/home/user/project")
	def(&c.OutputDir, "/tmp/opencode/output")
	if c.User.Root {
		c.User.UID, c.User.GID = 0, 0
	} else {
		if c.User.UID == 0 {
			c.User.UID = 1000
		}
		if c.User.GID == 0 {
			c.User.GID = 1000
		}
	}
	if c.LeaseSeconds == 0 {
		c.LeaseSeconds = 24 * 60 * 60
	}
	if c.LogFD == 0 {
		c.LogFD = 2
	}
	for _, f := range []struct{ name, dir string }{
		{"project", c.Project}, {"user.home", c.User.Home}, {"outputDir", c.OutputDir}, {"user.shell", c.User.Shell},
	} {
		if !path.IsAbs(f.dir) || strings.ContainsRune(f.dir, 0) {
			return fmt.Errorf("guest: config: %s must be an absolute path, it is %q", f.name, f.dir)
		}
	}
	for _, kv := range c.Env {
		if i := strings.IndexByte(kv, '='); i <= 0 || strings.ContainsRune(kv, 0) {
			return fmt.Errorf("guest: config: env entry %q is not KEY=value", kv)
		}
	}
	switch g := c.Cgroup; {
	case g.Version < 0 || g.Version > 2:
		return fmt.Errorf("guest: config: cgroup.version must be 0, 1 or 2, it is %d", g.Version)
	case g.Version == 1 && len(g.TasksFDs) == 0:
		return errors.New("guest: config: cgroup version 1 needs tasksFDs")
	case g.Version == 2 && g.DirFD <= 2:
		return errors.New("guest: config: cgroup version 2 needs dirFD")
	}
	if g := c.Cgroup; g.MeminfoFD > 2 && (g.Memory <= 0 || g.Version == 0 || g.Version == 1 && (g.UsageFD <= 2 || g.StatFD <= 2)) {
		return errors.New("guest: config: meminfoFD needs cgroup memory, and in version 1 usageFD and statFD")
	}
	c.Limits.setDefaults()
	return nil
}

func (l *Limits) setDefaults() {
	pos := func(p *int, v int) {
		if *p <= 0 {
			*p = v
		}
	}
	pos64 := func(p *int64, v int64) {
		if *p <= 0 {
			*p = v
		}
	}
	pos(&l.Connections, 4096)
	pos(&l.Sessions, 64)
	pos(&l.Processes, 4096)
	pos(&l.FinishedProcesses, 256)
	pos64(&l.FinishedSeconds, 600)
	pos64(&l.FinishedBytes, 16<<20)
	pos(&l.FinishedRuns, 1024)
	pos64(&l.FinishedRunBytes, 64<<20)
	pos(&l.Runs, 256)
	pos64(&l.OrphanSeconds, 600)
	pos64(&l.SlowClientSeconds, 30)
}

func seconds(n int64) time.Duration { return time.Duration(n) * time.Second }
