package code

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

// Context is an interpreter that keeps its state. It is safe for use by many
// goroutines; runs go one after the other.
type Context struct {
	box  *sandbox.Client
	spec Spec
	turn chan struct{} // held by the run that is under way

	mu      sync.Mutex
	in      *interpreter // nil when it has ended
	info    Info
	current string // the run that can be interrupted
	count   int
	closed  bool
}

var validID = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,32}$`)

func newMark() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// Create starts an interpreter. Errors: CodePythonNotAvailable,
// CodeJavaScriptNotAvailable or CodeTypeScriptNotAvailable with the reason,
// CodeAlreadyExists, CodeTooManyProcesses over MaxContexts, CodeInterpreterNotReady,
// CodeInvalidArgument, and what Start says of Dir.
func Create(ctx context.Context, box *sandbox.Client, spec Spec) (*Context, error) {
	const op = "create code context"
	spec.Language = cmp.Or(spec.Language, Python)
	switch spec.Language {
	case Python, JavaScript, TypeScript:
	default:
		return nil, sandbox.Errf(sandbox.CodeInvalidArgument, op, fmt.Sprintf("there is no language %.40q", spec.Language), "use python, javascript or typescript")
	}
	if spec.ID == "" {
		spec.ID = newMark()[:12]
	}
	if !validID.MatchString(spec.ID) {
		return nil, sandbox.Errf(sandbox.CodeInvalidArgument, op, fmt.Sprintf("the id %.60q is not 1 to 32 of a-z A-Z 0-9 _ -", spec.ID), "")
	}
	all, err := List(ctx, box)
	if err != nil {
		return nil, err
	}
	if len(all) >= MaxContexts {
		return nil, sandbox.Errf(sandbox.CodeTooManyProcesses, op, fmt.Sprintf("there are %d code contexts, and no more are allowed", len(all)), "close some")
	}
	if slices.ContainsFunc(all, func(i Info) bool { return i.ID == spec.ID }) {
		return nil, sandbox.Errf(sandbox.CodeAlreadyExists, op, "there is a code context "+spec.ID+" already", "attach to it, or choose another id")
	}
	in, err := startInterpreter(ctx, box, spec)
	if err != nil {
		return nil, err
	}
	return newContext(box, spec, in), nil
}

func newContext(box *sandbox.Client, spec Spec, in *interpreter) *Context {
	c := &Context{box: box, spec: spec, turn: make(chan struct{}, 1), in: in}
	c.info = infoOf(in.process)
	c.info.Version = in.hello.Version
	return c
}

// Attach connects to a context that another client has made, or this one before its
// connection broke. That client, if it is still there, is disconnected from it.
// CodeContextNotFound when there is none.
func Attach(ctx context.Context, box *sandbox.Client, id string) (*Context, error) {
	const op = "attach to code context"
	missing := sandbox.Errf(sandbox.CodeContextNotFound, op, fmt.Sprintf("there is no code context %.60q", id), "create one")
	if !validID.MatchString(id) {
		return nil, missing
	}
	p, err := box.Get(ctx, processOf(id))
	if sandbox.CodeOf(err) == sandbox.CodeProcessNotFound || err == nil && !p.Running {
		return nil, missing
	}
	if err != nil {
		return nil, err
	}
	in, err := reach(ctx, box, p, "")
	if err != nil {
		return nil, err
	}
	return newContext(box, Spec{ID: id, Language: Language(p.Labels[labelLanguage]), Dir: p.Dir}, in), nil
}

func infoOf(p *sandbox.ProcessInfo) Info {
	return Info{ID: p.Labels[labelID], Language: Language(p.Labels[labelLanguage]), Dir: p.Dir, Created: p.Started}
}

// List gives the contexts of a sandbox whose interpreters run, oldest first.
func List(ctx context.Context, box *sandbox.Client) ([]Info, error) {
	all, err := box.List(ctx)
	if err != nil {
		return nil, err
	}
	infos := []Info{}
	for _, p := range all {
		if p.Running && p.Labels[labelID] != "" {
			infos = append(infos, infoOf(&p))
		}
	}
	return infos, nil
}

// Delete ends a context by its id. CodeContextNotFound when there is none.
func Delete(ctx context.Context, box *sandbox.Client, id string) error {
	missing := sandbox.Errf(sandbox.CodeContextNotFound, "delete code context", fmt.Sprintf("there is no code context %.60q", id), "")
	if !validID.MatchString(id) {
		return missing
	}
	err := box.Signal(ctx, processOf(id), "SIGKILL")
	switch sandbox.CodeOf(err) {
	case sandbox.CodeProcessNotFound, sandbox.CodeProcessExited:
		return missing
	}
	if err != nil {
		return err
	}
	_ = box.Remove(ctx, processOf(id))
	return box.RemoveFile(ctx, dirOf(id), true)
}

// Info describes the context and its present interpreter.
func (c *Context) Info() Info {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.info
}

// Close ends the interpreter, with a run that is under way.
func (c *Context) Close(ctx context.Context) error {
	c.mu.Lock()
	in, closed := c.in, c.closed
	c.closed, c.in = true, nil
	c.mu.Unlock()
	if closed {
		return nil
	}
	if in != nil {
		in.kill(ctx)
	}
	err := c.box.RemoveFile(ctx, dirOf(c.spec.ID), true)
	if sandbox.CodeOf(err) == sandbox.CodeFileNotFound {
		return nil
	}
	return err
}

// Detach ends this client's connections and leaves the interpreter, with a run that
// is under way, for Attach.
func (c *Context) Detach() {
	c.mu.Lock()
	in := c.in
	c.closed, c.in = true, nil
	c.mu.Unlock()
	if in != nil {
		in.close()
	}
}

// Interrupt ends the run that is under way, if there is one; Run then returns with the
// error that the code has got. It does not wait for that.
func (c *Context) Interrupt(context.Context) error {
	c.mu.Lock()
	in, id := c.in, c.current
	c.mu.Unlock()
	if in == nil || id == "" {
		return nil
	}
	if err := in.send(message{Op: "interrupt", ID: id}); err != nil {
		return in.crash("interrupt")
	}
	return nil
}

// Run runs a piece of code and waits for its end.
//
// Errors: CodeInterpreterCrashed; CodeTimeout, which says whether the state was kept;
// CodeInvalidArgument when the code is over MaxCode; CodeContextNotFound after Close.
// When ctx ends, the run is interrupted and the error is the context's. The Outcome
// is there with every error that comes after the run began, with what came until
// then.
func (c *Context) Run(ctx context.Context, code string, opts RunOptions) (*Outcome, error) {
	const op = "run code"
	if len(code) > MaxCode {
		return nil, sandbox.Errf(sandbox.CodeInvalidArgument, op, fmt.Sprintf("the code is longer than %d MiB", MaxCode>>20), "put it into a file and import that")
	}
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	in, fresh, err := c.interpreter(ctx)
	if err != nil {
		return nil, err
	}
	r := &run{c: c, in: in, id: newMark(), opts: opts, out: &Outcome{Fresh: fresh}, events: make(chan event, 64)}
	c.mu.Lock()
	if fresh {
		c.count = 0
	}
	c.count++
	r.out.Count, c.current = c.count, r.id
	c.mu.Unlock()
	began := time.Now()
	err = r.do(ctx, code)
	r.out.Duration = time.Since(began)
	c.mu.Lock()
	c.current = ""
	c.mu.Unlock()
	return r.out, err
}

// interpreter gives the one there is, or a new one after its end.
func (c *Context) interpreter(ctx context.Context) (in *interpreter, fresh bool, err error) {
	c.mu.Lock()
	in, closed := c.in, c.closed
	c.mu.Unlock()
	switch {
	case closed:
		return nil, false, sandbox.Errf(sandbox.CodeContextNotFound, "run code", "the code context "+c.spec.ID+" was closed", "create another one")
	case in != nil && in.alive():
		return in, false, nil
	case in != nil:
		if err := in.crash("run code"); sandbox.CodeOf(err) != sandbox.CodeInterpreterCrashed {
			return nil, false, err // it may well be there
		}
		c.drop(in)
	}
	if in, err = startInterpreter(ctx, c.box, c.spec); err != nil {
		return nil, false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		go in.kill(ctx)
		return nil, false, sandbox.Errf(sandbox.CodeContextNotFound, "run code", "the code context "+c.spec.ID+" was closed meanwhile", "create another one")
	}
	c.in = in
	c.info = infoOf(in.process)
	c.info.Version = in.hello.Version
	return in, true, nil
}

// drop forgets an interpreter that is of no use any more.
func (c *Context) drop(in *interpreter) {
	c.mu.Lock()
	if c.in == in {
		c.in = nil
	}
	c.mu.Unlock()
	in.kill(context.Background())
}

// resultOf reads the data of a result. What can't be read is left out.
func resultOf(m message) Result {
	binary := func(s string) []byte {
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil || len(b) == 0 {
			return nil
		}
		return b
	}
	d := m.Data
	r := Result{Text: d["text/plain"], HTML: d["text/html"], Markdown: d["text/markdown"], SVG: d["image/svg+xml"], LaTeX: d["text/latex"],
		JavaScript: d["application/javascript"], PNG: binary(d["image/png"]), JPEG: binary(d["image/jpeg"]), Final: m.Final}
	if j := json.RawMessage(d["application/json"]); json.Valid(j) {
		r.JSON = j
	}
	return r
}
