//go:build linux

package linux

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/driver/linux/boot"
	"github.com/tongs-dev/tongs/sandbox"
)

// shmBytes is the size of /dev/shm. Its pages count for the commands' memory limit.
const shmBytes = 64 << 20

// The sandbox's user.
const userID = 1000

// Descriptors of a new guest, after the usual three.
const (
	bootFD = 3 + iota
	channelFD
	firstLateFD
)

// guestBoot is the document that a guest reads first; package guest says what it means.
type guestBoot struct {
	Setup boot.Config `json:"setup"`
	Guest guestConfig `json:"guest"`
}

type guestConfig struct {
	ListenerFD   int         `json:"listenerFD"`
	User         guestUser   `json:"user"`
	Env          []string    `json:"env,omitempty"`
	Cgroup       guestCgroup `json:"cgroup,omitzero"`
	LeaseSeconds int64       `json:"leaseSeconds"`
	ListenPath   string      `json:"listenPath,omitempty"` // where the guest makes its own listener
}

type guestUser struct {
	Shell    string `json:"shell,omitempty"`
	AlsoRoot bool   `json:"alsoRoot,omitempty"`
}

type guestCgroup struct {
	Version  int   `json:"version,omitempty"`
	TasksFDs []int `json:"tasksFDs,omitempty"`
	DirFD    int   `json:"dirFD,omitempty"`
	OOMFD    int   `json:"oomFD,omitempty"`
	Tasks    int64 `json:"tasks,omitempty"`
	PidsFD   int   `json:"pidsFD,omitempty"`
	Memory   int64 `json:"memory,omitempty"`
	UsageFD  int   `json:"usageFD,omitempty"`
	StatFD   int   `json:"statFD,omitempty"`
}

// launch starts the guest of a sandbox that is kept in dir. lay lays the directory out, or is nil when that
// is done; it is called while the guest's program starts. When launch returns nil, the guest is ready,
// its record is written and it is watched; else nothing of it is left but its group and its socket.
func (d *Driver) launch(ctx context.Context, r record, dir string, files []driver.File, lay func() error) (err error) {
	const op = "start guest"
	if rt, err := d.runtimeOf(op, r); err != nil {
		return err
	} else if rt != nil {
		return d.launchRuntime(ctx, rt, r, dir, files, lay)
	}
	program, err := d.guestImage()
	if err != nil {
		return err
	}
	ours, theirs, err := channel()
	if err != nil {
		return driver.Wrap(op, err)
	}
	defer ours.Close()
	defer theirs.Close()
	out, err := boundedLog()
	if err != nil {
		return driver.Wrap(op, err)
	}
	defer func() {
		if err != nil {
			out.Close()
		}
	}()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return driver.Wrap(op, err)
	}
	defer null.Close()
	var lobby *os.File
	if !r.rootless() { // else the guest mounts what is the host's
		lobby = d.lobby.open(d.log)
	}

	late := &lateParts{d: d, r: r, lay: lay, laid: make(chan struct{})}
	defer late.close()
	if d.groups != nil && d.groups.version() == 2 {
		// The guest is born in its group, so that has to be there first.
		if err := late.makeGroup(); err != nil {
			return err
		}
	}
	doc, early, places := d.bootDocument(r, true, late.group)
	config, err := memory("tongs-boot", doc)
	if err != nil {
		return driver.Wrap(op, err)
	}
	defer config.Close()
	given := []*os.File{null, out, out, config, theirs}
	for len(given) < firstLateFD+len(places) {
		given = append(given, null) // keeps the number for what comes over the channel
	}
	for _, f := range early {
		if f == nil {
			f = null // keeps the number for what the guest opens
		}
		given = append(given, f)
	}

	var p *process
	bornIn := late.group
	ready := make(chan error, 1)
	go func() { ready <- late.make() }()
	var m *mounting
	if !r.rootless() {
		m = startMounting(r, dir, files, late.laid, func(all *mounts) error { return sendPlan(ctx, ours, r, dir, all, late.files(), places) })
	}
	var pid int
	err = onThread(func() (err error) {
		if pid, err = spawn(program, given, bornIn, r, lobby); err == nil {
			m.born(pid)
		}
		return err
	})
	theirs.Close() // so that ours ends when the guest's does
	if err == nil {
		p, err = adopt(pid)
	}
	if err == nil && r.mapped() {
		err = r.Spec.Image.Map.Apply(ctx, pid)
	}
	if lerr := <-ready; err == nil {
		err = lerr
	}
	if err == nil {
		err = driver.Wrap("record guest", d.writeGuest(dir, p))
	}
	if merr := m.finish(err == nil); err == nil {
		err = merr
	}
	switch {
	case err != nil || !r.rootless():
	case !r.mapped():
		err = prepareUnmounted(dir, r, files)
	case lay == nil: // else everything is in its place
		err = placesMapped(ctx, dir, r)
	}
	if p == nil {
		return err
	}
	if err == nil && r.rootless() {
		err = sendPlan(ctx, ours, r, dir, nil, late.files(), places)
	}
	if err == nil {
		err = awaitReady(ctx, ours)
	}
	if err != nil {
		said := strings.TrimSpace(string(written(out)))
		if eerr := p.end(ctx, 0); eerr != nil {
			err = errors.Join(err, eerr)
		}
		p.close()
		_ = os.Remove(dir + "/" + guestFile)
		if errors.Is(err, errNoLayers) {
			return err
		}
		return explainLaunch(op, err, said)
	}
	d.watch.add(d.log, r.Spec.ID, d.dir(r.Spec.ID), p, out)
	d.log.Debug("guest started", "sandbox", r.Spec.ID, "pid", p.pid)
	return nil
}

// bootDocument gives what the guest reads first, the descriptors that it is born with besides, and the
// numbers that those get that come to it over the channel: first the listener, then the group's. atCwd says that
// spawn starts it.
func (d *Driver) bootDocument(r record, atCwd bool, g *group) (doc []byte, early []*os.File, places []int) {
	lease := int64(r.Spec.Lease / time.Second)
	switch {
	case r.Spec.Lease < 0:
		lease = -1
	case lease == 0:
		lease = 1
	}
	next := firstLateFD
	number := func() int { next++; return next - 1 }
	b := guestBoot{Setup: boot.Config{ChannelFD: channelFD, RootAtCwd: atCwd}, Guest: guestConfig{
		ListenerFD:   number(),
		User:         guestUser{Shell: r.Spec.Image.Shell, AlsoRoot: r.Spec.Root},
		Env:          mergeEnv(r.Spec.Image.Env, r.Spec.Env),
		LeaseSeconds: lease,
	}}
	switch c := &b.Guest.Cgroup; {
	case d.ownKernel(r):
		b.Guest.ListenPath = SocketDir + "/" + socketFile
		// The host's groups are around all of it, the guest included. The commands have one inside, which limits their number
		// and tells nothing.
		if pids := r.Spec.Limits.Pids; pids > 0 {
			c.Version, c.Tasks, c.TasksFDs = 1, pids, []int{number()}
		}
	case d.groups == nil:
	default:
		if slices.Contains(d.groups.controllers(), "pids") {
			c.Tasks = max(r.Spec.Limits.Pids, 0)
		}
		c.Memory = shownMemory(r, d.groups)
		b.Setup.Meminfo = c.Memory > 0
		if c.Version = d.groups.version(); c.Version == 2 {
			b.Setup.Clone3 = true
			b.Setup.Group, early = c.take2(g, d.groups.controllers(), number)
		} else {
			c.take1(d.groups.controllers(), number)
		}
	}
	places = []int{b.Guest.ListenerFD}
	if b.Guest.Cgroup.Version == 1 {
		for n := b.Guest.ListenerFD + 1; n < next; n++ {
			places = append(places, n)
		}
	}
	doc, err := json.Marshal(b)
	if err != nil {
		panic(err) // there is nothing in it that has no JSON
	}
	return doc, early, places
}

// take1 gives the files of a group of version 1 their numbers, in the order of group.tasks.
func (c *guestCgroup) take1(controllers []string, number func() int) {
	for _, controller := range controllers {
		c.TasksFDs = append(c.TasksFDs, number())
		switch controller {
		case "memory":
			c.OOMFD, c.UsageFD, c.StatFD = number(), number(), number()
		case "pids":
			c.PidsFD = number()
		}
	}
}

// take2 does so for a group of version 2, whose files the guest is born with. own is for a guest that opens them itself:
// nil in early keeps the number for it.
func (c *guestCgroup) take2(g *group, controllers []string, number func() int) (own *boot.Group, early []*os.File) {
	c.DirFD, early = number(), append(early, g.dir)
	if g.dir == nil {
		own = &boot.Group{Dir: g.path, FD: c.DirFD, Files: make(map[string]int)}
		for controller, n := range map[string]*int{"memory": &c.OOMFD, "pids": &c.PidsFD} {
			if slices.Contains(controllers, controller) {
				*n, early = number(), append(early, nil)
				own.Files[controller+".events"] = *n
			}
		}
		return own, early
	}
	if g.oom != nil {
		c.OOMFD, early = number(), append(early, g.oom)
	}
	if g.full != nil {
		c.PidsFD, early = number(), append(early, g.full)
	}
	return nil, early
}

// lateParts are made while the guest's program starts.
type lateParts struct {
	d        *Driver
	r        record
	lay      func() error
	laid     chan struct{} // closed once that is done; nil when nobody waits
	group    *group
	listener *os.File
}

func (l *lateParts) make() error {
	if l.lay != nil {
		if err := l.lay(); err != nil {
			return driver.Wrap("lay out sandbox", err)
		}
	}
	if l.laid != nil {
		close(l.laid)
	}
	if l.d.groups != nil && l.group == nil {
		if err := l.makeGroup(); err != nil {
			return err
		}
	}
	f, err := listen(l.d.dirs.run, socketName(l.r.Spec.ID))
	l.listener = f
	return driver.Wrap("bind guest socket", err)
}

func (l *lateParts) makeGroup() error {
	limits := l.r.Spec.Limits
	if l.d.ownKernel(l.r) {
		limits = aroundKernel(limits)
	}
	g, err := l.d.groups.create(l.d.groupName(l.r.Spec.ID), limits, l.r.Base)
	l.group = g
	return driver.Wrap("make cgroup", err)
}

// files are those that go over the channel, in the order of their places.
func (l *lateParts) files() []*os.File {
	all := []*os.File{l.listener}
	if l.group != nil && l.group.version == 1 {
		all = append(all, l.group.tasks...)
	}
	return all
}

func (l *lateParts) close() {
	l.group.close()
	if l.listener != nil {
		l.listener.Close()
	}
}

// mergeEnv gives base with over on top, by name.
func mergeEnv(base, over []string) []string {
	name := func(kv string) string { n, _, _ := strings.Cut(kv, "="); return n }
	all := slices.Clone(base)
	for _, kv := range over {
		i := slices.IndexFunc(all, func(have string) bool { return name(have) == name(kv) })
		if i < 0 {
			all = append(all, kv)
		} else {
			all[i] = kv
		}
	}
	return all
}

// writeGuest notes which process the guest is, before it is let go.
func (d *Driver) writeGuest(dir string, p *process) error {
	start, _, err := startTime(p.pid)
	if err != nil {
		return err
	}
	b, err := bootID()
	if err != nil {
		return err
	}
	return writeJSON(dir, guestFile, guestRecord{PID: p.pid, Start: start, Boot: b})
}

// sendPlan hands a guest its mounts, and lets it go on. m is nil where it makes its own.
func sendPlan(ctx context.Context, c *net.UnixConn, r record, dir string, m *mounts, late []*os.File, places []int) error {
	plan := boot.Plan{Hostname: r.Spec.Hostname, TmpBytes: r.Spec.Limits.TmpBytes, ShmBytes: shmBytes, Egress: r.Spec.Network == driver.NetworkEgress, UID: userID, GID: userID, Root: r.Spec.Root, Late: places}
	var fds []int
	n := 0
	if m == nil {
		var err error
		if plan.Rootless, err = rootlessPlan(dir, r); err != nil {
			return err
		}
		n = len(plan.Rootless.Binds)
	} else {
		fds = append(fds, int(m.root.Fd()))
		for _, f := range m.parts {
			fds = append(fds, int(f.Fd()))
		}
		plan.Mounts, n = m.targets, len(m.targets)
	}
	for _, f := range late {
		fds = append(fds, int(f.Fd()))
	}
	if n > boot.MaxMounts {
		return driver.Invalid("start guest", "%d mounts, the most is %d", n, boot.MaxMounts)
	}
	message, err := json.Marshal(plan)
	if err != nil {
		return err
	}
	// It is the first message, and smaller than what waits in a socket: nobody has to read it for this to end.
	if _, _, err := c.WriteMsgUnix(message, unix.UnixRights(fds...), nil); err != nil {
		return ended(ctx, err)
	}
	return nil
}

// awaitReady waits until a guest that has its plan says that it is ready.
func awaitReady(ctx context.Context, c *net.UnixConn) error {
	ctx, cancel := within(ctx, bootTimeout)
	defer cancel()
	deadline, _ := ctx.Deadline()
	if err := c.SetDeadline(deadline); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	answer := make([]byte, 4096)
	n, err := c.Read(answer)
	if err != nil || n == 0 {
		return ended(ctx, err)
	}
	err = boot.DecodeAnswer(answer[:n])
	var failure *boot.Failure
	if errors.As(err, &failure) && failure.Op == boot.OpLayers {
		return fmt.Errorf("%w: %w", errNoLayers, err)
	}
	return bootError(err)
}

// rootlessPlan says what a guest has to mount by itself.
func rootlessPlan(dir string, r record) (*boot.Rootless, error) {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, err
	}
	plan := &boot.Rootless{Mapped: r.mapped(), Root: filepath.Join(real, rootDir)}
	if !r.Copied {
		plan = &boot.Rootless{Mapped: r.mapped(), Layers: &boot.Layers{Dir: real, Lower: lowerDir, Upper: upperDir, Work: workDir}}
		for _, layer := range r.Spec.Image.Lower {
			image, err := filepath.EvalSymlinks(layer)
			if err != nil {
				return nil, err
			}
			plan.Layers.Images = append(plan.Layers.Images, image)
		}
	}
	add := func(source, target string, writable bool) error {
		real, err := filepath.EvalSymlinks(source)
		if err == nil {
			plan.Binds = append(plan.Binds, boot.Bind{Source: real, Target: target, Writable: writable})
		}
		return err
	}
	for _, b := range r.Spec.Image.Binds {
		if err := add(b.Source, b.Target, false); err != nil && (!errors.Is(err, fs.ErrNotExist) || b.Source == "/usr") {
			return nil, err
		}
	}
	for _, b := range r.Spec.Binds {
		if err := add(b.Source, b.Target, b.Writable); err != nil {
			return nil, err
		}
	}
	return plan, nil
}

// ended says why a guest's channel gave nothing.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("no answer: %w", context.Cause(ctx))
	}
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) {
		return errors.New("it died before it was ready")
	}
	return err
}

// explainLaunch puts together why a guest didn't start, with what it said.
func explainLaunch(op string, err error, said string) error {
	var done *sandbox.Error
	if errors.As(err, &done) {
		return err
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	message := err.Error()
	if len(said) > 2000 {
		said = "…" + said[len(said)-2000:]
	}
	if said != "" {
		message += "; the guest said: " + said
	}
	e := &sandbox.Error{Code: driver.CodeGuestFailed, Op: op, Message: message, Err: err, Hint: "run `tongs doctor`"}
	if failure := (*boot.Failure)(nil); errors.As(err, &failure) && refused(failure) && failure.Errno != syscall.ENOSPC {
		if why, cure := lookAround().explain(makingMounts, failure); why != "" {
			e.Code, e.Message, e.Hint = driver.CodeUnsupported, why+": "+message, cure
			return e
		}
	}
	var errno syscall.Errno
	if errors.As(err, &errno) && (errno == syscall.ENOSPC || errno == syscall.EDQUOT) {
		e.Code, e.Hint = sandbox.CodeNoSpace, driver.SpaceHint(errno)
	}
	return e
}
