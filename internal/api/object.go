package api

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/fleet"
	"github.com/tongs-dev/tongs/internal/image"
	"github.com/tongs-dev/tongs/sandbox"
	"github.com/tongs-dev/tongs/sandbox/remote"
)

// apiVersion is the number of the endpoint's objects.
const apiVersion = 1

// object is the main object of one connection.
type object struct {
	s *Server
	p *peer
}

func (s *Server) object(p *peer) *capnweb.Target { return objectClass.New(&object{s, p}) }

var objectClass = capnweb.NewClass[*object](capnweb.Methods{
	"version":     (*object).version,
	"sandboxes":   (*object).sandboxes,
	"create":      (*object).create,
	"get":         (*object).get,
	"sandbox":     (*object).get, // the name that the bridge's object has for it
	"inspect":     (*object).inspect,
	"destroy":     (*object).destroy,
	"checkpoint":  (*object).checkpoint,
	"restore":     (*object).restore,
	"issueToken":  (*object).issueToken,
	"tokens":      (*object).tokens,
	"revokeToken": (*object).revokeToken,
}, capnweb.Concurrent())

func (o *object) version() remote.Version {
	return remote.Version{Tongs: o.s.cfg.Version, API: apiVersion, Sandbox: o.p.sandbox}
}

// wholeHost refuses what a token of one sandbox is not good for.
func (o *object) wholeHost(op string) error {
	if o.p.sandbox == "" {
		return nil
	}
	return sandbox.Errf(sandbox.CodePermissionDenied, op, "this token is good for one sandbox only", "use the host's own token")
}

// find is Lookup, for subagents' sessions too, within what the token is good for.
func (o *object) find(ctx context.Context, ref string) (fleet.Entry, error) {
	if o.p.sandbox != "" {
		e, err := o.s.cfg.Fleet.Lookup(o.p.sandbox)
		if err != nil {
			return e, err
		}
		if ref == "" || ref == e.Name || ref == e.Session || ref == e.ID {
			return e, nil
		}
		// Whether there is such a sandbox is not this token's business.
		return e, sandbox.Errf(sandbox.CodeSandboxNotFound, "find sandbox", fmt.Sprintf("this token gives no sandbox %.80q", ref), "it is good for "+e.String()+" only")
	}
	e, err := o.s.cfg.Fleet.Lookup(ref)
	if sandbox.CodeOf(err) == sandbox.CodeSandboxNotFound && strings.HasPrefix(ref, "ses_") && len(ref) < 64 && o.s.cfg.Root != nil {
		if root, rerr := o.s.cfg.Root(ctx, ref); rerr == nil && root != ref {
			return o.s.cfg.Fleet.Lookup(root)
		}
	}
	return e, err
}

func (o *object) sandboxes(ctx context.Context, opts *remote.ListOptions) (*remote.Page, error) {
	const op = "list sandboxes"
	if opts == nil {
		opts = &remote.ListOptions{}
	}
	if opts.Limit < 0 || opts.Limit > maxPage {
		return nil, sandbox.Errf(sandbox.CodeInvalidArgument, op, fmt.Sprintf("a page of %d", opts.Limit), fmt.Sprintf("1 to %d", maxPage))
	}
	after, err := parseCursor(opts.Cursor)
	if err != nil {
		return nil, err
	}
	all, err := o.s.cfg.Fleet.Catalog(ctx)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(e fleet.Entry) bool {
		if o.p.sandbox != "" && e.ID != o.p.sandbox || !after.before(e) {
			return true
		}
		for k, v := range opts.Labels {
			if e.Labels[k] != v {
				return true
			}
		}
		return false
	})
	page := &remote.Page{Sandboxes: []remote.Info{}}
	if limit := cmp.Or(opts.Limit, defaultPage); len(all) > limit {
		all = all[:limit]
		page.Next = cursorOf(all[limit-1])
	}
	titles := o.titles(ctx, all)
	for _, e := range all {
		page.Sandboxes = append(page.Sandboxes, infoOf(e, titles))
	}
	return page, nil
}

const (
	defaultPage = 100
	maxPage     = 1000
)

// titlesTimeout bounds how long a list waits for OpenCode.
const titlesTimeout = 2 * time.Second

func (o *object) titles(ctx context.Context, entries []fleet.Entry) map[string]string {
	if o.s.cfg.Titles == nil || !slices.ContainsFunc(entries, func(e fleet.Entry) bool { return e.Session != "" }) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, titlesTimeout)
	defer cancel()
	return o.s.cfg.Titles(ctx)
}

func infoOf(e fleet.Entry, titles map[string]string) remote.Info {
	return remote.Info{
		ID: e.ID, Name: e.Name, Session: e.Session, Title: titles[e.Session], State: string(e.State), Damage: e.Damage,
		Created: e.Created, Image: e.Image, Project: e.Project, Labels: e.Labels, Driver: e.Driver, Checkpoint: e.Checkpoint,
	}
}

// cursor is the place in the list behind one sandbox: that one may be gone meanwhile.
type cursor struct {
	created int64
	id      string
}

func cursorOf(e fleet.Entry) string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d %s", e.Created.UnixNano(), e.ID))
}

func parseCursor(text string) (cursor, error) {
	if text == "" {
		return cursor{created: -1 << 63}, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(text)
	number, id, ok := strings.Cut(string(raw), " ")
	n, nerr := strconv.ParseInt(number, 10, 64)
	if err != nil || nerr != nil || !ok || len(text) > 300 {
		return cursor{}, sandbox.Errf(sandbox.CodeInvalidArgument, "list sandboxes", "the cursor is none", "pass what `next` of the page before was")
	}
	return cursor{n, id}, nil
}

func (c cursor) before(e fleet.Entry) bool {
	return cmp.Or(cmp.Compare(c.created, e.Created.UnixNano()), cmp.Compare(c.id, e.ID)) < 0
}

func (o *object) create(ctx context.Context, opts *remote.CreateOptions) (*capnweb.Target, error) {
	const op = "create sandbox"
	if err := o.wholeHost(op); err != nil {
		return nil, err
	}
	if opts == nil {
		opts = &remote.CreateOptions{}
	}
	if opts.Image != "" && o.s.cfg.Image == nil {
		return nil, sandbox.Errf(sandbox.CodeNotSupported, op, fmt.Sprintf("the image %.80q", opts.Image), "leave it out: this endpoint has one image")
	}
	if len(opts.Env) > 1000 {
		return nil, sandbox.Errf(sandbox.CodeInvalidArgument, op, "there are more than 1,000 variables", "write them to a file that commands read")
	}
	if opts.MemoryBytes < 0 || opts.Pids < 0 || opts.CPUs < 0 || opts.TmpBytes < 0 || opts.DiskBytes < 0 || opts.DiskFiles < 0 {
		return nil, sandbox.Errf(sandbox.CodeInvalidArgument, op, "a limit is negative", "leave it out for the configured one")
	}
	if opts.Reuse && opts.Name != "" {
		if e, err := o.s.cfg.Fleet.Lookup(opts.Name); err == nil && e.Name == opts.Name {
			return o.box(e), nil
		}
	}
	var root *image.Root
	if opts.Image != "" {
		ctx, cancel := context.WithTimeout(ctx, pullTimeout)
		defer cancel()
		r, release, err := o.s.cfg.Image(ctx, opts.Image)
		if err != nil {
			return nil, err
		}
		defer release() // no earlier: nobody removes it before the sandbox has it
		root = &r
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	select {
	case o.s.creating <- struct{}{}:
		defer func() { <-o.s.creating }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var env []string
	for k, v := range opts.Env {
		env = append(env, k+"="+v)
	}
	slices.Sort(env)
	var prepare fleet.Preparation
	if opts.Project != "" {
		if o.s.cfg.Project == nil {
			return nil, sandbox.Errf(sandbox.CodeNotSupported, op, "this endpoint has no files of projects", "")
		}
		prepare = o.s.cfg.Project(opts.Project)
	}
	e, err := o.s.cfg.Fleet.Create(ctx, fleet.CreateOptions{
		Name: opts.Name, Labels: opts.Labels, Env: env, Prepare: prepare, Image: root, ImageName: opts.Image,
		Root: opts.Root, Driver: opts.Driver,
		Limits: driver.Limits{MemoryBytes: opts.MemoryBytes, Pids: opts.Pids, CPUs: opts.CPUs, TmpBytes: opts.TmpBytes, DiskBytes: opts.DiskBytes, DiskFiles: opts.DiskFiles},
	})
	if opts.Reuse && sandbox.CodeOf(err) == sandbox.CodeAlreadyExists {
		if e, err := o.s.cfg.Fleet.Lookup(opts.Name); err == nil && e.Name == opts.Name {
			return o.box(e), nil // somebody else was faster
		}
	}
	if err != nil {
		return nil, err
	}
	return o.box(e), nil
}

// get gives a sandbox's object. It does not start the sandbox: the first use does.
func (o *object) get(ctx context.Context, ref *string) (*capnweb.Target, error) {
	e, err := o.find(ctx, deref(ref))
	if err != nil {
		return nil, err
	}
	return o.box(e), nil
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func (o *object) inspect(ctx context.Context, ref *string) (*remote.Info, error) {
	e, err := o.find(ctx, deref(ref))
	if err != nil {
		return nil, err
	}
	return o.describe(ctx, e, true)
}

// describe completes an entry; its guest is asked if that is wanted and it runs.
func (o *object) describe(ctx context.Context, e fleet.Entry, ask bool) (*remote.Info, error) {
	all, err := o.s.cfg.Fleet.Catalog(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(x fleet.Entry) bool { return x.ID == e.ID })
	if i < 0 {
		return nil, sandbox.Errf(sandbox.CodeSandboxNotFound, "inspect sandbox", "the sandbox "+e.String()+" is gone", "")
	}
	info := infoOf(all[i], o.titles(ctx, all[i:i+1]))
	if ask && all[i].State == fleet.Running {
		box, err := o.s.cfg.Fleet.Open(ctx, all[i])
		if err != nil {
			return nil, err
		}
		if info.Guest, err = box.Info(ctx); err != nil {
			return nil, err
		}
	}
	return &info, nil
}

func (o *object) destroy(ctx context.Context, ref *string) (*remote.Info, error) {
	if err := o.wholeHost("destroy sandbox"); err != nil {
		return nil, err
	}
	e, err := o.find(ctx, deref(ref))
	if err != nil {
		return nil, err
	}
	info := infoOf(e, nil)
	return &info, o.s.remove(ctx, e)
}

// checkpoint and restore take disk of the host's, and end or start what others use.
func (o *object) checkpoint(ctx context.Context, ref *string) (*remote.Info, error) {
	return o.settle(ctx, "checkpoint sandbox", ref, o.s.cfg.Fleet.Checkpoint)
}

func (o *object) restore(ctx context.Context, ref *string, fresh *bool) (*remote.Info, error) {
	f := o.s.cfg.Fleet
	return o.settle(ctx, "restore sandbox", ref, func(ctx context.Context, e fleet.Entry) error {
		if fresh != nil && *fresh {
			if err := f.DropCheckpoint(ctx, e); err != nil {
				return err
			}
			_, err := f.Open(ctx, e)
			return err
		}
		_, err := f.Restore(ctx, e)
		return err
	})
}

// settle does something with a sandbox and describes it then.
func (o *object) settle(ctx context.Context, op string, ref *string, do func(context.Context, fleet.Entry) error) (*remote.Info, error) {
	if err := o.wholeHost(op); err != nil {
		return nil, err
	}
	e, err := o.find(ctx, deref(ref))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, checkpointTimeout)
	defer cancel()
	if err := do(ctx, e); err != nil {
		return nil, err
	}
	return o.describe(ctx, e, false)
}

// remove destroys a sandbox, and with it the tokens that are good for it.
func (s *Server) remove(ctx context.Context, e fleet.Entry) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout) // half a removal helps nobody
	defer cancel()
	if err := s.cfg.Fleet.Remove(ctx, e); err != nil {
		return err
	}
	if s.cfg.Forget != nil {
		s.cfg.Forget(e)
	}
	_, err := s.cfg.Tokens.revoke(func(i *issued) bool { return i.Sandbox == e.ID })
	return err
}

func (o *object) issueToken(ctx context.Context, opts *remote.TokenOptions) (*remote.TokenInfo, error) {
	if err := o.wholeHost("issue token"); err != nil {
		return nil, err
	}
	if opts == nil {
		opts = &remote.TokenOptions{}
	}
	e, err := o.find(ctx, opts.Sandbox)
	if err != nil {
		return nil, err
	}
	return o.s.cfg.Tokens.issue(e.ID, opts.Expires, opts.Note)
}

func (o *object) tokens() ([]remote.TokenInfo, error) {
	if err := o.wholeHost("list tokens"); err != nil {
		return nil, err
	}
	return o.s.cfg.Tokens.list(), nil
}

func (o *object) revokeToken(id string) (bool, error) {
	if err := o.wholeHost("revoke token"); err != nil {
		return false, err
	}
	n, err := o.s.cfg.Tokens.revoke(func(i *issued) bool { return i.ID == id })
	return n > 0, err
}

// box makes the object of one sandbox.
func (o *object) box(e fleet.Entry) *capnweb.Target {
	b := &box{o: o, entry: e}
	return capnweb.NewDispatcher(b, capnweb.Concurrent(), capnweb.OnClose(b.close))
}

// box is the object of one sandbox: what is said here, and below that the surface.
type box struct {
	o     *object
	entry fleet.Entry

	mu      sync.Mutex
	client  *sandbox.Client // that surface speaks through
	surface *capnweb.Stub
}
