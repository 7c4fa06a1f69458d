package boot

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// channelSeconds is how long the driver may take from starting this process to sending the plan.
const channelSeconds = 30

// Run turns the process that calls it into the first process of a sandbox, as the driver wants it.
// It must be PID 1 of new namespaces, and nothing else may have happened in the process yet. setup is
// a Config as JSON. On error, the driver has been told and the process must exit.
func Run(setup json.RawMessage) (ready Ready, err error) {
	cfg, ok := plainConfig(setup)
	if !ok {
		cfg = Config{}
		err = json.Unmarshal(setup, &cfg)
	}
	if err != nil {
		return ready, fmt.Errorf("boot: setup: %w", err)
	}
	if os.Getpid() != 1 || cfg.ChannelFD <= 2 {
		return ready, errors.New("boot: this process was not started by a driver: it must be PID 1 and have a channel")
	}
	unix.CloseOnExec(cfg.ChannelFD)
	// It was started by a descriptor's number, which ps would show as its name.
	if name, err := unix.BytePtrFromString("tongs-guest"); err == nil {
		_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(name)), 0, 0, 0)
	}
	defer unix.Close(cfg.ChannelFD)

	ready, err = run(cfg)
	// The driver may be gone; then nobody waits for the answer, and a booted sandbox is as good.
	_ = unix.Send(cfg.ChannelFD, report(err), unix.MSG_NOSIGNAL)
	return ready, err
}

// report is what the driver is told.
func report(err error) []byte {
	if err == nil {
		return []byte("{}") // a Failure without an Op; encoding/json takes a sixteenth of a millisecond when it is first used
	}
	var f *Failure
	if !errors.As(err, &f) {
		f = &Failure{Op: "boot", Message: err.Error()}
	}
	data, err := json.Marshal(f)
	if err != nil {
		panic(err) // there is nothing in it that has no JSON
	}
	return data
}

func run(cfg Config) (ready Ready, err error) {
	if cfg.RootAtCwd {
		if err := unix.Chroot("."); err != nil {
			return ready, fail("enter the host's root", err)
		}
	}
	plan, fds, err := receive(cfg.ChannelFD)
	if err != nil {
		return ready, err
	}
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for i, n := range plan.Late {
		if err := unix.Dup3(fds[len(fds)-len(plan.Late)+i], n, unix.O_CLOEXEC); err != nil {
			return ready, fail("take over descriptor", err)
		}
	}
	if plan.Inside != nil {
		ready.MeminfoFD, err = inside(cfg, plan)
	} else {
		if plan.Rootless != nil {
			if cfg.Group != nil {
				if err := enterGroup(*cfg.Group); err != nil {
					return ready, err
				}
			}
			own, targets, err := ownMounts(*plan.Rootless)
			if err != nil {
				return ready, err
			}
			plan.Mounts, fds = targets, append(own, fds...)
		}
		ready.MeminfoFD, err = furnish(cfg, plan, fds)
	}
	if err != nil {
		return ready, err
	}
	if err := dropPrivileges(!plan.oneID(), plan.Root, plan.Inside != nil && plan.Inside.OwnKernel); err != nil {
		return ready, err
	}
	if err := loadFilter(cfg.Clone3); err != nil {
		return ready, err
	}
	ready.Restrict, err = fence(LandlockVersion(), "/", plan.Root)
	return ready, err
}

// furnish makes what there is in a sandbox on the host's kernel: its files, its network and its name. meminfo is as of Ready.
func furnish(cfg Config, plan Plan, fds []int) (meminfo int, err error) {
	if meminfo, err = enterRoot(cfg, plan, fds); err != nil {
		return 0, err
	}
	if err := Network(plan.Egress); err != nil {
		return 0, err
	}
	if err := unix.Sethostname([]byte(plan.Hostname)); err != nil {
		return 0, fail("set hostname", err)
	}
	return meminfo, scratch(plan)
}

// receive waits for the plan and its descriptors.
func receive(channel int) (Plan, []int, error) {
	tv := unix.Timeval{Sec: channelSeconds}
	if err := unix.SetsockoptTimeval(channel, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return Plan{}, nil, fail("set channel deadline", err)
	}
	buf := make([]byte, MaxPlanBytes)
	oob := make([]byte, unix.CmsgSpace((MaxMounts+MaxLate+1)*4))
	var n, oobn, flags int
	for {
		var err error
		n, oobn, flags, _, err = unix.Recvmsg(channel, buf, oob, unix.MSG_CMSG_CLOEXEC)
		if err == nil {
			break
		}
		if err != unix.EINTR {
			return Plan{}, nil, fail("wait for the driver", err)
		}
	}
	if n == 0 {
		return Plan{}, nil, &Failure{Op: "wait for the driver", Message: "it went away"}
	}
	fds, err := descriptors(oob[:oobn])
	if err == nil && flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		err = &Failure{Op: "receive plan", Message: "the message was cut"}
	}
	var plan Plan
	if err == nil {
		plan, err = DecodePlan(buf[:n])
	}
	if want := plan.descriptors(); err == nil && len(fds) != want {
		err = &Failure{Op: "receive plan", Message: fmt.Sprintf("%d descriptors instead of %d", len(fds), want)}
	}
	if err != nil {
		for _, fd := range fds {
			unix.Close(fd)
		}
		return Plan{}, nil, err
	}
	return plan, fds, nil
}

func descriptors(oob []byte) ([]int, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fail("receive plan", err)
	}
	var fds []int
	for _, m := range msgs {
		got, err := unix.ParseUnixRights(&m)
		if err != nil {
			return fds, fail("receive plan", err)
		}
		fds = append(fds, got...)
	}
	return fds, nil
}

// network raises the loopback interface, the only one there is.
func network() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fail("open socket", err)
	}
	defer unix.Close(s)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return fail("name loopback", err)
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fail("raise loopback", err)
	}
	return nil
}

// scratch makes the places that tools expect in /tmp, which is new at each start.
func scratch(plan Plan) error {
	for _, dir := range []string{"/tmp/opencode", "/tmp/opencode/output"} {
		if err := unix.Mkdir(dir, 0o755); err != nil && err != unix.EEXIST {
			return fail("make "+dir, err)
		}
		if err := unix.Lchown(dir, plan.UID, plan.GID); err != nil {
			return fail("give away "+dir, err)
		}
	}
	return nil
}

func fail(op string, err error) error {
	f := &Failure{Op: op, Message: strings.TrimSpace(err.Error())}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		f.Errno = errno
	}
	return f
}
