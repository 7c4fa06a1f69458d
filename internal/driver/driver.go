package driver

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"time"

	"github.com/tongs-dev/tongs/internal/image"
	"github.com/tongs-dev/tongs/sandbox"
)

// The names of what runs sandboxes, as Spec.Driver has them.
const (
	Linux  = "linux"  // namespaces of the host's kernel
	GVisor = "gvisor" // a kernel of its own for each sandbox
	Runc   = "runc"   // runtimes of the host's kernel
	Crun   = "crun"
)

// Names are all of them.
var Names = []string{Linux, GVisor, Runc, Crun}

// Driver makes and removes sandboxes. Its methods may be called by many goroutines and, as far as
// the directory it keeps them in is concerned, by many processes: calls about one sandbox wait for
// each other, calls about different ones run side by side.
//
// All errors are *sandbox.Error (or a context's own); the codes that only drivers use are in this
// package.
type Driver interface {
	// Name is the driver's name in configuration and messages, "linux" for instance.
	Name() string

	// Create makes a sandbox and starts its guest; both are done when it returns nil. All or
	// nothing: after an error nothing of it is left. An id that is taken is ALREADY_EXISTS.
	Create(ctx context.Context, spec Spec) error

	// Start starts the guest of an existing sandbox, whatever ended the last one: Stop, a crash, a
	// reboot. Its files are as they were, /tmp is empty. It does nothing if the guest is running.
	Start(ctx context.Context, id string) error

	// Dial opens one raw connection to the guest's socket. The protocol on it is package sandbox's.
	// A sandbox whose guest isn't running is SANDBOX_NOT_RUNNING.
	Dial(ctx context.Context, id string) (net.Conn, error)

	// Stop ends the guest and every process of the sandbox: politely first, by force when the guest
	// takes longer than some seconds or ctx ends. Its files stay. It does nothing if nothing runs.
	Stop(ctx context.Context, id string) error

	// Destroy is Stop, and removes the sandbox and its files.
	Destroy(ctx context.Context, id string) error

	// List gives all sandboxes that exist, running or not, in the order of their ids.
	List(ctx context.Context) ([]Status, error)

	// Recover removes what creations and removals that were cut short have left behind (directories,
	// processes, cgroups, sockets), and returns one line about each thing it removed. It leaves alone
	// what another process is working on right now.
	Recover(ctx context.Context) ([]string, error)

	// Check examines this machine, for `tongs doctor`: what works, what is missing, and the exact cure.
	Check(ctx context.Context) []Finding

	// Close lets go of what this process holds. Sandboxes go on running.
	Close() error
}

// Spec says what a sandbox is made from. Only ID and Image, or From, are required.
type Spec struct {
	// ID names the sandbox: 1 to 128 letters, digits, '.', '_' and '-', the first a letter or digit.
	ID string `json:"id"`

	// Driver names what the sandbox is run by, where the driver has a choice: "linux", "gvisor", "runc". Default:
	// the driver's own, which Name gives.
	Driver string `json:"driver,omitempty"`

	// Image is the root file system that the sandbox starts from. It is never written to. It is required
	// unless From is set.
	Image image.Root `json:"image"`

	// From is the id of a sandbox whose files the new one starts with, as they are while they are copied:
	// processes are not copied, and a file that is being written may be caught in between. Image and
	// Network are then that sandbox's. It may be running or not.
	From string `json:"from,omitempty"`

	// Binds are directories and files of the host that are visible inside. They are mounted each
	// time the guest starts, nosuid and nodev, and never idmapped: the sandbox sees them as a
	// stranger does, so it reads what everybody may read.
	Binds []Bind `json:"binds,omitempty"`

	// Files are written once, when the sandbox is made.
	Files []File `json:"-"`

	Limits Limits `json:"limits,omitzero"`

	// Network is what the sandbox's programs reach besides each other. Default NetworkNone.
	Network Network `json:"network,omitempty"`

	// Hostname inside; default "sandbox".
	Hostname string `json:"hostname,omitempty"`

	// Env is added to the environment of commands, as KEY=value; it wins over the image's.
	Env []string `json:"env,omitempty"`

	// Lease is how long the guest goes on without anybody connected to it. Default 24 h; negative
	// is for ever.
	Lease time.Duration `json:"lease,omitempty"`

	// Root lets commands run as the sandbox's root too (sandbox.ProcessSpec.User "root"). It is nobody on
	// the host, and of what root may do it has only what installing and configuring software takes: see
	// docs/security.md. A driver that has one user id for each sandbox refuses it.
	Root bool `json:"root,omitempty"`

	// Labels are kept with the sandbox and given back by List.
	Labels map[string]string `json:"labels,omitempty"`
}

// Network says what programs in a sandbox can connect to.
type Network string

const (
	// NetworkNone: nothing but the sandbox's own loopback.
	NetworkNone Network = ""

	// NetworkEgress: TCP connections and DNS queries, whatever they are addressed to, arrive at
	// listeners on the loopback that the host makes with the guest's Listen and ListenPacket, at
	// sandbox.EgressPort and sandbox.EgressDNSPort. Until it does, they fail at once. Special addresses
	// (private, link-local), other UDP, ICMP and IPv6 are refused by the kernel.
	NetworkEgress Network = "egress"
)

// Bind is a directory or file of the host that is visible in the sandbox.
type Bind struct {
	Source string `json:"source"` // absolute path on the host
	Target string `json:"target"` // absolute path inside; made when it isn't there

	// Writable leaves out the read-only flag. What the host's permissions say still holds: the
	// sandbox's user is a stranger to the host's files.
	Writable bool `json:"writable,omitempty"`
}

// File is a file that the sandbox starts with.
type File struct {
	Path string // absolute, inside; missing parents belong to UID and have mode 0755
	Data []byte // at most MaxFileBytes
	Mode fs.FileMode
	UID  uint32 // owner and group, in the sandbox's own ids; 1000 is its user
}

// MaxFileBytes is the most that one File may hold. Anything larger is better bound or copied later.
const MaxFileBytes = 16 << 20

// Limits bound what a sandbox's commands can take. The guest itself stays outside of memory and pids
// limits, so that commands that hit them can still be stopped. Zero is the default, negative is no
// limit. Where the machine has no cgroups, only TmpBytes and those of the disk hold; Check says so.
type Limits struct {
	// MemoryBytes bounds all commands together, page cache, /tmp and /dev/shm included, without
	// swap. Default 2 GiB.
	MemoryBytes int64 `json:"memoryBytes,omitempty"`

	// Pids bounds how many processes and threads the commands have together. Default 512.
	Pids int64 `json:"pids,omitempty"`

	// CPUs bounds the commands' share in processors; 1.5 is one and a half. Default: all there are.
	CPUs float64 `json:"cpus,omitempty"`

	// CPUWeight is the sandbox's part, beside that of other sandboxes, of processors for which there are more
	// commands than they can run: 1 to 10,000. Default 100.
	CPUWeight int64 `json:"cpuWeight,omitempty"`

	// TmpBytes is the size of /tmp, which is in memory and counts for MemoryBytes too. Default 1 GiB.
	TmpBytes int64 `json:"tmpBytes,omitempty"`

	// DiskBytes bounds what the sandbox keeps on disk beside its image, in bytes, and DiskFiles how many files,
	// directories and links. Default 10 GiB and 1,000,000 where the machine can hold a sandbox to that, else no
	// limit: Check says which. A limit that was asked for and can't be kept is refused with
	// MACHINE_NOT_SUPPORTED.
	DiskBytes int64 `json:"diskBytes,omitempty"`
	DiskFiles int64 `json:"diskFiles,omitempty"`
}

// The default limits of a sandbox.
const (
	DefaultMemoryBytes = 2 << 30
	DefaultPids        = 512
	DefaultTmpBytes    = 1 << 30
	DefaultCPUWeight   = 100
	DefaultDiskBytes   = 10 << 30
	DefaultDiskFiles   = 1_000_000
	DefaultLease       = 24 * time.Hour
	DefaultHostname    = "sandbox"
)

// WithDefaults fills in what is zero, but for the disk, whose defaults depend on the machine. Negative values
// stay.
func (l Limits) WithDefaults() Limits {
	if l.MemoryBytes == 0 {
		l.MemoryBytes = DefaultMemoryBytes
	}
	if l.Pids == 0 {
		l.Pids = DefaultPids
	}
	if l.TmpBytes == 0 {
		l.TmpBytes = DefaultTmpBytes
	}
	return l
}

// Status is what is known about a sandbox without asking its guest.
type Status struct {
	ID      string
	Labels  map[string]string
	Running bool
	PID     int // of the guest, as the host sees it; 0 when it isn't running
	Created time.Time
	Image   image.Root // what it was made from; of no meaning for a damaged one
	Driver  string     // what runs it, as Spec.Driver has it

	// Checkpoint is when the one was made from which the next Start goes on; zero is none (Checkpointer).
	Checkpoint time.Time

	// Damaged says why a sandbox can't be started, if it can't: its record is unreadable, say. It is
	// kept until somebody destroys it.
	Damaged string
}

// Level grades a Finding.
type Level string

// The levels of a Finding.
const (
	OK      Level = "ok"      // works
	Warning Level = "warning" // sandboxes work, something is weaker or slower than it could be
	Failure Level = "failure" // sandboxes don't work
)

// Finding is one thing that Check looked at.
type Finding struct {
	Name   string `json:"name"` // short and stable, like "user namespaces"
	Level  Level  `json:"level"`
	Detail string `json:"detail"`         // what was found
	Cure   string `json:"cure,omitempty"` // the command or change that helps; empty when all is well
}

// FindingOf is a Finding about an error, with its cure.
func FindingOf(name string, level Level, err error) Finding {
	f := Finding{Name: name, Level: level, Detail: err.Error()}
	var e *sandbox.Error
	if errors.As(err, &e) {
		f.Detail, f.Cure = e.Message, e.Hint
	}
	return f
}
