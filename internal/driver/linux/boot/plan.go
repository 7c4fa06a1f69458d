package boot

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"syscall"
)

// Config is the part of the guest's boot document that is for this package.
type Config struct {
	// ChannelFD is an inherited unix socket of type SOCK_SEQPACKET.
	ChannelFD int `json:"channelFD"`
}

// MaxPlanBytes bounds the message that carries a Plan. MaxMounts bounds the descriptors beside it; the
// kernel passes at most 253 in one message.
const (
	MaxPlanBytes = 128 << 10
	MaxMounts    = 240
)

// Plan is the one message from the driver. The descriptors that come with it are the root's
// mount and one mount for each of Mounts, in this order.
type Plan struct {
	Hostname string   `json:"hostname"`
	TmpBytes int64    `json:"tmpBytes"` // size of /tmp; negative is the kernel's default (half of the memory)
	ShmBytes int64    `json:"shmBytes"` // size of /dev/shm
	UID      int      `json:"uid"`      // who owns /tmp/opencode
	GID      int      `json:"gid"`
	Mounts   []string `json:"mounts"` // where each mount goes, absolute inside; parents come first
}

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
	var p Plan
	if len(data) > MaxPlanBytes {
		return Plan{}, fmt.Errorf("boot: a plan of %d bytes, the most is %d", len(data), MaxPlanBytes)
	}
	if err := json.Unmarshal(data, &p); err != nil {
		return Plan{}, fmt.Errorf("boot: plan: %w", err)
	}
	if p.Hostname == "" || len(p.Hostname) > 64 {
		return Plan{}, errors.New("boot: plan: the hostname must have 1 to 64 bytes")
	}
	if len(p.Mounts) > MaxMounts {
		return Plan{}, fmt.Errorf("boot: plan: %d mounts, the most is %d", len(p.Mounts), MaxMounts)
	}
	for _, m := range p.Mounts {
		if !path.IsAbs(m) || path.Clean(m) != m || m == "/" {
			return Plan{}, fmt.Errorf("boot: plan: %q is not a clean absolute path below /", m)
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
