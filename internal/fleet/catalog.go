package fleet

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/image"
	"github.com/tongs-dev/tongs/sandbox"
)

// Codes of the fleet.
const (
	// CodeAmbiguous: more than one sandbox begins like that; the message lists them.
	CodeAmbiguous = sandbox.CodeAmbiguousName
	// CodeTooManySandboxes: the fleet has as many named sandboxes as it may have.
	CodeTooManySandboxes = sandbox.CodeTooManySandboxes
)

// DefaultMaxNamed is how many named sandboxes a fleet makes when nothing else is said.
const DefaultMaxNamed = 4096

// Bounds of the labels that whoever makes a sandbox may give it.
const (
	MaxLabels          = 32
	MaxLabelKeyBytes   = 63
	MaxLabelValueBytes = 256
)

const (
	labelPrefix = "tongs."      // of the fleet's own labels
	labelImage  = "tongs.image" // what a sandbox was made from
)

// HostImage is the name of the image that is the host's own toolchain.
const HostImage = "host"

// State says whether a sandbox runs.
type State string

// The states of a sandbox.
const (
	Running State = "running" // its guest runs
	Stopped State = "stopped" // its files are there; it is started when it is used
	Damaged State = "damaged" // it cannot be started; Entry.Damage says why
)

// Entry describes one sandbox.
type Entry struct {
	ID      string
	Name    string // "" for a session's sandbox
	Session string // the root session's id; "" for a named sandbox
	State   State
	Damage  string // why it is damaged
	Created time.Time
	Image   string
	Project string            // what LabelProject says; "" for none
	Labels  map[string]string // those that its maker gave it
	Driver  string            // what runs it, driver.Linux for instance

	// Checkpoint is when the one was made from which a stopped sandbox goes on; zero is none.
	Checkpoint time.Time

	key key
}

// CreateOptions say how a named sandbox is made. The zero value is a sandbox like a session's, with
// a name that is made up.
type CreateOptions struct {
	// Name is 1 to 40 of a-z, 0-9 and '-', the first and last no '-'. It can be part of a host name.
	Name string
	// Labels are kept with the sandbox.
	Labels map[string]string
	// Env is added to the environment of its commands, KEY=value.
	Env []string
	// Prepare, if set, completes its recipe.
	Prepare Preparation
	// Image, if set, replaces that of the recipe, and ImageName says what it is called.
	Image     *image.Root
	ImageName string
	// Limits replace those of the recipe where they are not 0.
	Limits driver.Limits
	// Driver runs it instead of the recipe's, if it is not "".
	Driver string
	// Root lets its commands run as its root too, whatever the recipe says.
	Root bool
}

var validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`)

// Create makes a named sandbox and starts it. Errors: ALREADY_EXISTS, VALIDATION_FAILED,
// TOO_MANY_SANDBOXES, and those of the driver.
func (f *Fleet) Create(ctx context.Context, opts CreateOptions) (Entry, error) {
	const op = "create sandbox"
	if opts.Name == "" {
		opts.Name = "box-" + newID()[:6]
	}
	spec, err := f.named(op, opts)
	if err != nil {
		return Entry{}, err
	}
	k := key{labelName, opts.Name}
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return Entry{}, errStopping(op)
	}
	if _, taken := f.members[k]; taken || slices.Contains(f.cfg.Reserved, opts.Name) {
		f.mu.Unlock()
		return Entry{}, sandbox.Errf(sandbox.CodeAlreadyExists, op, "there is a sandbox "+opts.Name+" already", "choose another name, or use that one")
	}
	named := 0
	for other := range f.members {
		if other.label == labelName {
			named++
		}
	}
	if named >= cmp.Or(f.cfg.MaxNamed, DefaultMaxNamed) {
		f.mu.Unlock()
		return Entry{}, sandbox.Errf(CodeTooManySandboxes, op, fmt.Sprintf("there are %d sandboxes, and no more are allowed", named), "destroy some")
	}
	m := f.newMember(k, newID(), false)
	m.prepare = opts.Prepare
	f.members[k] = m
	f.mu.Unlock()
	if _, err := m.reach(ctx, spec); err != nil {
		f.abandon(m)
		return Entry{}, err
	}
	return Entry{
		ID: m.id, Name: opts.Name, State: Running, Created: time.Now(), Image: spec.Labels[labelImage], Project: m.takenIn(), Labels: maps.Clone(opts.Labels), key: k,
		Driver: cmp.Or(spec.Driver, driver.Linux),
	}, nil
}

// abandon takes a sandbox back whose maker got an error. The attempt may still be under way; it is
// waited for in the background, and what it has made is destroyed.
func (f *Fleet) abandon(m *member) {
	f.mu.Lock()
	if f.closed || f.members[m.key] != m {
		f.mu.Unlock()
		return
	}
	delete(f.members, m.key)
	f.abandoned.Add(1)
	f.mu.Unlock()
	go func() {
		defer f.abandoned.Done()
		m.retire()
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		if err := f.cfg.Driver.Destroy(ctx, m.id); err != nil && sandbox.CodeOf(err) != sandbox.CodeSandboxNotFound {
			f.cfg.Logger.Warn("a sandbox that nobody waited for could not be removed", "sandbox", m.id, "error", err)
		}
		f.ended(m)
	}()
}

// named checks what is asked for and makes the recipe of it.
func (f *Fleet) named(op string, opts CreateOptions) (driver.Spec, error) {
	spec := f.cfg.Recipe
	if !validName.MatchString(opts.Name) {
		return spec, sandbox.Errf(sandbox.CodeInvalidArgument, op, fmt.Sprintf("%.60q can't be a sandbox's name", opts.Name),
			"use 1 to 40 of a-z, 0-9 and '-', with no '-' at either end")
	}
	if len(opts.Labels) > MaxLabels {
		return spec, sandbox.Errf(sandbox.CodeInvalidArgument, op, fmt.Sprintf("%d labels were given", len(opts.Labels)), fmt.Sprintf("at most %d", MaxLabels))
	}
	spec.Labels = map[string]string{labelImage: cmp.Or(f.cfg.Image, HostImage)}
	if opts.Image != nil {
		spec.Image, spec.Labels[labelImage] = *opts.Image, cmp.Or(opts.ImageName, opts.Image.ID)
	}
	for name, value := range opts.Labels {
		if name == "" || len(name) > MaxLabelKeyBytes || len(value) > MaxLabelValueBytes || strings.ContainsFunc(name+value, func(r rune) bool { return r < ' ' }) {
			return spec, sandbox.Errf(sandbox.CodeInvalidArgument, op, fmt.Sprintf("the label %.80q is too long or holds control characters", name),
				fmt.Sprintf("a key may have %d bytes, a value %d", MaxLabelKeyBytes, MaxLabelValueBytes))
		}
		if strings.HasPrefix(name, labelPrefix) {
			return spec, sandbox.Errf(sandbox.CodeInvalidArgument, op, fmt.Sprintf("the label %q", name), "labels that begin with "+labelPrefix+" are Tongs' own")
		}
		spec.Labels[name] = value
	}
	spec.Env = slices.Concat(spec.Env, opts.Env)
	l := opts.Limits
	spec.Limits.MemoryBytes = cmp.Or(l.MemoryBytes, spec.Limits.MemoryBytes)
	spec.Limits.Pids = cmp.Or(l.Pids, spec.Limits.Pids)
	spec.Limits.CPUs = cmp.Or(l.CPUs, spec.Limits.CPUs)
	spec.Limits.TmpBytes = cmp.Or(l.TmpBytes, spec.Limits.TmpBytes)
	spec.Limits.DiskBytes = cmp.Or(l.DiskBytes, spec.Limits.DiskBytes)
	spec.Limits.DiskFiles = cmp.Or(l.DiskFiles, spec.Limits.DiskFiles)
	spec.Root = spec.Root || opts.Root
	spec.Driver = cmp.Or(opts.Driver, spec.Driver)
	spec.Hostname = opts.Name
	check := spec
	check.ID = "x"
	return spec, check.Check(op)
}

// Catalog lists the sandboxes, running or not, in the order in which they were made. Reserved ones
// are left out.
func (f *Fleet) Catalog(ctx context.Context) ([]Entry, error) {
	all, err := f.cfg.Driver.List(ctx)
	if err != nil {
		return nil, err
	}
	entries := make([]Entry, 0, len(all))
	for _, status := range all {
		k, ok := keyOf(status.Labels)
		if !ok || f.reserved(k) {
			continue
		}
		e := entryOf(k, status.ID)
		e.Created, e.State, e.Damage, e.Driver = status.Created, Stopped, status.Damaged, status.Driver
		e.Checkpoint = status.Checkpoint
		switch {
		case e.Damage != "":
			e.State = Damaged
		case status.Running:
			e.State = Running
		}
		e.Image, e.Project = cmp.Or(status.Labels[labelImage], HostImage), status.Labels[LabelProject]
		for name, value := range status.Labels {
			if !strings.HasPrefix(name, labelPrefix) {
				if e.Labels == nil {
					e.Labels = make(map[string]string)
				}
				e.Labels[name] = value
			}
		}
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b Entry) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	return entries, nil
}

func (f *Fleet) reserved(k key) bool {
	return k.label == labelName && slices.Contains(f.cfg.Reserved, k.value)
}

func entryOf(k key, id string) Entry {
	e := Entry{ID: id, key: k}
	if k.label == labelSession {
		e.Session = k.value
	} else {
		e.Name = k.value
	}
	return e
}

// Lookup finds a sandbox by its name, its id or its session's id, or by what one of these begins
// with, if nothing else begins like that. Of the Entry only ID, Name and Session are set. Errors:
// SANDBOX_NOT_FOUND, which names some that are called nearly so, and AMBIGUOUS_NAME.
func (f *Fleet) Lookup(ref string) (Entry, error) {
	const op = "find sandbox"
	f.mu.Lock()
	entries := make([]Entry, 0, len(f.members))
	for k, m := range f.members {
		if !f.reserved(k) {
			entries = append(entries, entryOf(k, m.id))
		}
	}
	f.mu.Unlock()
	if ref == "" {
		return Entry{}, sandbox.Errf(sandbox.CodeInvalidArgument, op, "no sandbox is named", "give a name, an id, or how one begins")
	}
	var found []Entry
	for _, e := range entries {
		if e.Name == ref || e.ID == ref || e.Session == ref {
			return e, nil
		}
		if strings.HasPrefix(e.Name, ref) || strings.HasPrefix(e.ID, ref) || strings.HasPrefix(e.Session, ref) {
			found = append(found, e)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return Entry{}, sandbox.Errf(sandbox.CodeSandboxNotFound, op, fmt.Sprintf("there is no sandbox %.80q", ref), nearHint(entries, ref))
	}
	names := make([]string, len(found))
	for i, e := range found {
		names[i] = e.String()
	}
	slices.Sort(names)
	const most = 10
	more := ""
	if len(names) > most {
		more = fmt.Sprintf(" and %d more", len(names)-most)
		names = names[:most]
	}
	return Entry{}, sandbox.Errf(CodeAmbiguous, op, fmt.Sprintf("%.80q is the beginning of several: %s%s", ref, strings.Join(names, ", "), more), "write more of it")
}

// String is what people call it: its name, else its session, else its id.
func (e Entry) String() string { return cmp.Or(e.Name, e.Session, e.ID) }

// Open reaches a sandbox that Lookup or Catalog has given, and starts it first if need be.
func (f *Fleet) Open(ctx context.Context, e Entry) (Sandbox, error) {
	f.mu.Lock()
	m, ok := f.members[e.key]
	if closed := f.closed; closed || !ok || m.id != e.ID {
		f.mu.Unlock()
		if closed {
			return Sandbox{}, errStopping("reach sandbox")
		}
		return Sandbox{}, sandbox.Errf(sandbox.CodeSandboxNotFound, "reach sandbox", "the sandbox "+e.String()+" was destroyed", "make another one")
	}
	f.mu.Unlock()
	client, err := m.reach(ctx, f.cfg.Recipe)
	if err != nil {
		return Sandbox{}, err
	}
	return Sandbox{ID: m.id, Client: client}, nil
}

// Remove destroys a sandbox with its files. A session whose sandbox is removed gets no other one.
func (f *Fleet) Remove(ctx context.Context, e Entry) error {
	f.mu.Lock()
	m, ok := f.members[e.key]
	f.mu.Unlock()
	if !ok || m.id != e.ID {
		return sandbox.Errf(sandbox.CodeSandboxNotFound, "destroy sandbox", "the sandbox "+e.String()+" is gone already", "")
	}
	return f.destroy(ctx, e.key)
}
