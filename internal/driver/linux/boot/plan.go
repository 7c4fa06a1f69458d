package boot

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Environ is for Go's runtime in a guest, beside the number of its boot document (guest.BootFDEnv). With one processor
// there are fewer threads, and the fewer a guest has when it gives up its rights, in all of them, the sooner it is
// ready; it has little to do at once later, too (package guest, processors). The rest is what tongs-guest sets by
// itself otherwise.
var Environ = []string{"GOMAXPROCS=1", "GOGC=40", "GOMEMLIMIT=256MiB"}

// Ready is what Run gives to the process that it has made the first of a sandbox.
type Ready struct {
	// MeminfoFD is a descriptor of the file that shows as /proc/meminfo, open for writing, where Config asks for one; else 0.
	MeminfoFD int

	// Restrict puts the thread that calls it, and all that descends from it, into the fence of commands; nil where the kernel
	// has none (LandlockVersion).
	Restrict func() error
}

// Config is the part of the guest's boot document that is for this package.
type Config struct {
	// ChannelFD is an inherited unix socket of type SOCK_SEQPACKET.
	ChannelFD int `json:"channelFD"`

	// RootAtCwd says that the root to begin with is the working directory, and that the process was started
	// with another.
	RootAtCwd bool `json:"rootAtCwd,omitempty"`

	// Clone3 leaves the guest the call of that name, by which it starts commands in a control group of
	// version 2. What it starts has it too.
	Clone3 bool `json:"clone3,omitempty"`

	// Meminfo asks for a file over /proc/meminfo that the guest writes.
	Meminfo bool `json:"meminfo,omitempty"`

	// Group is the control group of the commands, of version 2, where the driver can't give it as a mount.
	Group *Group `json:"group,omitempty"`
}

// Group is a directory of the host's that the sandbox gets as a mount of its own, read-only and attached nowhere. Something
// without meaning is open at the numbers.
type Group struct {
	Dir   string         `json:"dir"`
	FD    int            `json:"fd"`              // the number that the mount gets
	Files map[string]int `json:"files,omitempty"` // numbers of files in it, open for reading; one that isn't there is left out
}

// MaxPlanBytes bounds the message that carries a Plan. MaxMounts bounds the descriptors beside it; the
// kernel passes at most 253 in one message.
const (
	MaxPlanBytes = 128 << 10
	MaxMounts    = 230
	MaxLate      = 16

	maxLateFD = 63
)

// Plan is the one message from the driver. The descriptors that come with it are the root's
// mount, one mount for each of Mounts, and one for each of Late, in this order.
type Plan struct {
	Hostname string   `json:"hostname"`
	TmpBytes int64    `json:"tmpBytes"` // size of /tmp; negative is the kernel's default (half of the memory)
	ShmBytes int64    `json:"shmBytes"` // size of /dev/shm
	UID      int      `json:"uid"`      // who owns /tmp/opencode
	GID      int      `json:"gid"`
	Mounts   []string `json:"mounts"` // where each mount goes, absolute inside; parents come first

	// Root: commands may run as root too, so there are capabilities that they can get.
	Root bool `json:"root,omitempty"`

	// Egress: what programs connect to is turned to listeners that the host accepts. Without it there is
	// nothing but the loopback.
	Egress bool `json:"egress,omitempty"`

	// Late are the numbers that the last descriptors of the message get in this process, in their order;
	// until then something without meaning is open there. They are what the driver makes while this
	// process starts.
	Late []int `json:"late,omitempty"`

	// Inside, instead of descriptors: an OCI runtime has made the place, and the process is in it already.
	Inside *Inside `json:"inside,omitempty"`

	// Rootless, instead of descriptors: a driver without rights can't prepare mounts, so the process
	// makes them itself, of the host's files as it sees them.
	Rootless *Rootless `json:"rootless,omitempty"`
}

// Inside says what is left to do in a place that an OCI runtime has made.
type Inside struct {
	// OwnKernel: the system calls are answered by a kernel of the sandbox's own, such as gVisor's. Its
	// network was made outside, and what is masked and filtered elsewhere protects nobody there.
	OwnKernel bool `json:"ownKernel,omitempty"`

	// Listen is the path to listen at for the host, where a socket can't be inherited; ListenFD is the
	// number that the socket gets. "" and 0: it was inherited.
	Listen   string `json:"listen,omitempty"`
	ListenFD int    `json:"listenFD,omitempty"`

	// Pids is how many processes and threads commands may have, where the sandbox's own kernel counts them;
	// PidsFD is the number that the group's file of tasks gets. 0 is no limit.
	Pids   int64 `json:"pids,omitempty"`
	PidsFD int   `json:"pidsFD,omitempty"`
}

// Rootless says what a process mounts by itself.
type Rootless struct {
	// Mapped: the namespace has a range of ids, and the process, which is none of them yet, becomes its
	// root. Else there is the one id that the process has, and it stays that.
	Mapped bool    `json:"mapped,omitempty"`
	Root   string  `json:"root,omitempty"`   // directory of the host that becomes the root,
	Layers *Layers `json:"layers,omitempty"` // or what to put it together from
	Binds  []Bind  `json:"binds"`            // parts of the host; parents come first
}

// MaxLayers is how many directories an image may be made of. The kernel takes 500.
const MaxLayers = 128

// LayerName is the name that the layer number i of an image of several is mounted on: short, because older
// kernels take 255 bytes for all of them.
func LayerName(i int) string { return strconv.FormatInt(int64(i), 36) }

// Layers are a sandbox's own layer and an image below it. The names are in Dir, so that the mount, which
// everybody inside can read about, doesn't tell where that is.
type Layers struct {
	Dir    string   `json:"dir"`
	Images []string `json:"images"` // what the image is made of, the topmost first
	Lower  string   `json:"lower"`  // an empty directory to mount the image on
	Upper  string   `json:"upper"`
	Work   string   `json:"work"`
}

// OpLayers is the Op of a Failure to put layers together. A copy of the image does instead.
const OpLayers = "put layers together"

// OpEgress is the Op of a Failure to turn connections to the host: the kernel has no nf_tables with
// translation of addresses, say.
const OpEgress = "open the way out"

// Bind is a part of the host and where it goes.
type Bind struct {
	Source   string `json:"source"`
	Target   string `json:"target"`
	Writable bool   `json:"writable,omitempty"`
}

// name says whether s is one name, without what an overlay's options are divided by.
func name(s string) bool { return s != "" && s != "." && s != ".." && !strings.ContainsAny(s, "/:,\\") }

// oneID says whether there is one user id only inside, which isn't root's.
func (p Plan) oneID() bool { return p.Rootless != nil && !p.Rootless.Mapped }

// descriptors is how many come with the plan.
func (p Plan) descriptors() int {
	if p.Rootless != nil || p.Inside != nil {
		return len(p.Late)
	}
	return 1 + len(p.Mounts) + len(p.Late)
}

// clean says whether p can be the place of a mount.
func clean(p string) bool { return path.IsAbs(p) && path.Clean(p) == p && p != "/" }

func unclean(p string) bool { return !clean(p) }

// Failure is the answer of a boot that went wrong; an empty Op is success.
type Failure struct {
	Op      string        `json:"op"`
	Message string        `json:"message"`
	Errno   syscall.Errno `json:"errno,omitempty"`
}

func (f *Failure) Error() string { return "boot: " + f.Op + ": " + f.Message }

// Unwrap gives the system's error number, if there was one.
func (f *Failure) Unwrap() error {
	if f.Errno == 0 {
		return nil
	}
	return f.Errno
}

// DecodePlan reads and checks a Plan.
func DecodePlan(data []byte) (Plan, error) {
	if len(data) > MaxPlanBytes {
		return Plan{}, fmt.Errorf("boot: a plan of %d bytes, the most is %d", len(data), MaxPlanBytes)
	}
	p, ok := plainPlan(data)
	if !ok {
		p = Plan{}
		if err := json.Unmarshal(data, &p); err != nil {
			return Plan{}, fmt.Errorf("boot: plan: %w", err)
		}
	}
	if p.Hostname == "" || len(p.Hostname) > 64 {
		return Plan{}, errors.New("boot: plan: the hostname must have 1 to 64 bytes")
	}
	if len(p.Mounts) > MaxMounts {
		return Plan{}, fmt.Errorf("boot: plan: %d mounts, the most is %d", len(p.Mounts), MaxMounts)
	}
	for _, m := range p.Mounts {
		if !clean(m) {
			return Plan{}, fmt.Errorf("boot: plan: %q is not a clean absolute path below /", m)
		}
	}
	if len(p.Late) > MaxLate {
		return Plan{}, fmt.Errorf("boot: plan: %d late descriptors, the most is %d", len(p.Late), MaxLate)
	}
	for _, n := range p.Late {
		if n <= 2 || n > maxLateFD {
			return Plan{}, fmt.Errorf("boot: plan: %d can't be the number of a late descriptor", n)
		}
	}
	if in := p.Inside; in != nil {
		if len(p.Mounts) > 0 || p.Rootless != nil {
			return Plan{}, errors.New("boot: plan: inside a place that is made there is nothing to mount")
		}
		if in.Listen == "" && in.ListenFD != 0 || in.Listen != "" && (!clean(in.Listen) || in.ListenFD <= 2 || in.ListenFD > maxLateFD) {
			return Plan{}, fmt.Errorf("boot: plan: can't listen at %q as descriptor %d", in.Listen, in.ListenFD)
		}
		if in.Pids < 0 || in.Pids == 0 && in.PidsFD != 0 || in.Pids > 0 && (in.PidsFD <= 2 || in.PidsFD > maxLateFD) {
			return Plan{}, fmt.Errorf("boot: plan: can't limit to %d processes by descriptor %d", in.Pids, in.PidsFD)
		}
	}
	if r := p.Rootless; r != nil {
		if len(p.Mounts) > 0 || len(r.Binds) > MaxMounts || clean(r.Root) == (r.Layers != nil) {
			return Plan{}, errors.New("boot: plan: a rootless one has a root or layers, no mounts, and not too many binds")
		}
		if l := r.Layers; l != nil && (!clean(l.Dir) || len(l.Images) == 0 || len(l.Images) > MaxLayers || slices.ContainsFunc(l.Images, unclean) ||
			!name(l.Lower) || !name(l.Upper) || !name(l.Work)) {
			return Plan{}, errors.New("boot: plan: layers are names in a clean absolute directory, and clean absolute directories below them")
		}
		for _, b := range r.Binds {
			if !clean(b.Source) || !clean(b.Target) {
				return Plan{}, fmt.Errorf("boot: plan: %q on %q: both must be clean absolute paths below /", b.Source, b.Target)
			}
		}
	}
	return p, nil
}

// DecodeAnswer reads what a boot has answered: nil, or a *Failure.
func DecodeAnswer(data []byte) error {
	var f Failure
	if err := json.Unmarshal(data, &f); err != nil {
		return fmt.Errorf("boot: answer: %w", err)
	}
	if f.Op == "" {
		return nil
	}
	return &f
}
