package surface

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
	"github.com/tongs-dev/tongs/sandbox/code"
)

var codeMethods = capnweb.Methods{
	"gitCheckout":       guarded("git.checkout", "repoUrl", (*box).gitCheckout),
	"watch":             guarded("file.watch", "path", (*box).watch),
	"createCodeContext": guarded("code.context.create", "", (*box).createCodeContext),
	"listCodeContexts":  guarded("code.context.list", "", (*box).listCodeContexts),
	"deleteCodeContext": guarded("code.context.delete", "contextId", (*box).deleteCodeContext),
	"interruptCode":     guarded("code.interrupt", "contextId", (*box).interruptCode),
	"runCode":           guarded("code.execute", "", (*box).runCode),
	"runCodeStream":     guarded("code.execute", "", (*box).runCodeStream),
}

type contextOptions struct {
	ID       string             `json:"id"`
	Language string             `json:"language"` // python (the default), javascript, typescript, or py, js, ts
	Cwd      string             `json:"cwd"`
	EnvVars  map[string]*string `json:"envVars"`
	Timeout  float64            `json:"timeout"` // milliseconds, of each run
}

// codeContext is the SDK's CodeContext.
type codeContext struct {
	ID        string    `json:"id"`
	Language  string    `json:"language"`
	Cwd       string    `json:"cwd"`
	CreatedAt time.Time `json:"createdAt"`
	LastUsed  time.Time `json:"lastUsed"`
}

func language(name string) code.Language {
	switch name {
	case "", "py", "python":
		return code.Python
	case "js", "javascript":
		return code.JavaScript
	case "ts", "typescript":
		return code.TypeScript
	}
	return code.Language(name)
}

func (b *box) createCodeContext(ctx context.Context, o *contextOptions) (*codeContext, error) {
	if o == nil {
		o = &contextOptions{}
	}
	timeout, err := duration("create code context", "timeout", o.Timeout)
	if err != nil {
		return nil, err
	}
	place := sandbox.ProcessSpec{Dir: o.Cwd}
	if err := b.place(ctx, &place, o.EnvVars); err != nil {
		return nil, err
	}
	c, err := code.Create(ctx, b.Client, code.Spec{ID: o.ID, Language: language(o.Language), Dir: place.Dir, Env: place.Env, Timeout: timeout})
	if err != nil {
		return nil, err
	}
	in := c.Info()
	b.state.keep(b.Client, in.ID, c)
	return &codeContext{in.ID, string(in.Language), in.Dir, in.Created, b.state.used(in.ID)}, nil
}

func (b *box) listCodeContexts(ctx context.Context) ([]codeContext, error) {
	all, err := code.List(ctx, b.Client)
	list := make([]codeContext, len(all))
	for i, in := range all {
		list[i] = codeContext{in.ID, string(in.Language), in.Dir, in.Created, in.Created}
		if used := b.state.used(in.ID); used.After(in.Created) {
			list[i].LastUsed = used
		}
	}
	return list, err
}

func (b *box) deleteCodeContext(ctx context.Context, id string) error {
	if c := b.state.take(id); c != nil {
		c.Detach()
	}
	return code.Delete(ctx, b.Client, id)
}

// interruptCode ends the run of a context that is under way; its state stays.
func (b *box) interruptCode(ctx context.Context, id string) error {
	c, err := b.context(ctx, id)
	if err != nil {
		return err
	}
	return c.Interrupt(ctx)
}

// context gives the interpreter of that id over a connection that lives.
func (b *box) context(ctx context.Context, id string) (*code.Context, error) {
	if c := b.state.context(b.Client, id); c != nil {
		return c, nil
	}
	c, err := code.Attach(ctx, b.Client, id)
	if err != nil {
		return nil, err
	}
	return b.state.keep(b.Client, id, c), nil
}

// defaultContext is the one that code without a context runs in: one for each language.
func (b *box) defaultContext(ctx context.Context, lang code.Language) (*code.Context, error) {
	// Attaching to one that somebody else is about to hold would take it away from them.
	b.state.creating.Lock()
	defer b.state.creating.Unlock()
	id := "default-" + string(lang)
	for range 3 {
		c, err := b.context(ctx, id)
		if sandbox.CodeOf(err) != sandbox.CodeContextNotFound {
			return c, err
		}
		_, err = b.createCodeContext(ctx, &contextOptions{ID: id, Language: string(lang)})
		if err != nil && sandbox.CodeOf(err) != sandbox.CodeAlreadyExists {
			return nil, err
		}
	}
	return nil, sandbox.Errf(sandbox.CodeInterpreterNotReady, "run code", "the interpreter ends as soon as it has been started", "look at the sandbox's memory")
}

type runOptions struct {
	Context  *contextRef   `json:"context"`
	Language string        `json:"language"`
	Timeout  float64       `json:"timeout"`
	OnStdout *capnweb.Stub `json:"onStdout"`
	OnStderr *capnweb.Stub `json:"onStderr"`
	OnResult *capnweb.Stub `json:"onResult"`
	OnError  *capnweb.Stub `json:"onError"`
}

func (b *box) contextOf(ctx context.Context, o *runOptions) (*code.Context, error) {
	if o.Context != nil {
		return b.context(ctx, o.Context.ID)
	}
	return b.defaultContext(ctx, language(o.Language))
}

// contextRef names a context; a CodeContext does.
type contextRef struct {
	ID string `json:"id"`
}

// execution is the SDK's Execution.
type execution struct {
	Code           string           `json:"code"`
	Logs           executionLogs    `json:"logs"`
	Results        []map[string]any `json:"results"`
	Error          *codeError       `json:"error,omitempty"`
	ExecutionCount int              `json:"executionCount"`
	Truncated      bool             `json:"truncated,omitempty"`
	Fresh          bool             `json:"fresh,omitempty"`
}

// codeError is what the code has raised: a plain object, and no error of the call.
type codeError struct {
	Name      string   `json:"name"`
	Message   string   `json:"message"`
	Traceback []string `json:"traceback"`
}

func raised(e *code.Error) *codeError {
	if e == nil {
		return nil
	}
	return &codeError{e.Name, e.Message, e.Traceback}
}

type executionLogs struct {
	Stdout []string `json:"stdout"`
	Stderr []string `json:"stderr"`
}

// shown is a result in the SDK's shape: each form that it has, and their names.
func shown(r code.Result) map[string]any {
	out := map[string]any{}
	formats := []string{}
	set := func(name string, v any) {
		out[name] = v
		formats = append(formats, name)
	}
	for _, f := range []struct{ name, text string }{{"text", r.Text}, {"html", r.HTML}, {"markdown", r.Markdown}, {"svg", r.SVG}, {"latex", r.LaTeX}, {"javascript", r.JavaScript}} {
		if f.text != "" {
			set(f.name, f.text)
		}
	}
	if len(r.PNG) > 0 {
		set("png", base64.StdEncoding.EncodeToString(r.PNG))
	}
	if len(r.JPEG) > 0 {
		set("jpeg", base64.StdEncoding.EncodeToString(r.JPEG))
	}
	if len(r.JSON) > 0 {
		var v any
		if json.Unmarshal(r.JSON, &v) == nil {
			set("json", v)
		}
	}
	out["formats"] = formats
	return out
}

func lines(b []byte) []string {
	if len(b) == 0 {
		return []string{}
	}
	return []string{valid(b)}
}

func finished(text string, out *code.Outcome) *execution {
	e := &execution{Code: text, Logs: executionLogs{lines(out.Stdout), lines(out.Stderr)}, Results: []map[string]any{}, Error: raised(out.Error),
		ExecutionCount: out.Count, Truncated: out.Truncated, Fresh: out.Fresh}
	room := maxText / 2
	for _, r := range out.Results {
		// Text may take six bytes for one, pictures four for three.
		if room -= 6*(len(r.Text)+len(r.HTML)+len(r.Markdown)+len(r.SVG)+len(r.LaTeX)+len(r.JavaScript)+len(r.JSON)) + 2*(len(r.PNG)+len(r.JPEG)); room < 0 {
			e.Truncated = true
			break
		}
		e.Results = append(e.Results, shown(r))
	}
	return e
}

// runCode runs a piece of code, whose state is kept for the next, in a context or in the default one of its
// language. Code that raises an error gives an execution with that error. A run ends with its caller.
func (b *box) runCode(text string, o *runOptions) (*capnweb.Promise, error) {
	if o == nil {
		o = &runOptions{}
	}
	timeout, err := duration("run code", "timeout", o.Timeout)
	if err != nil {
		return nil, err
	}
	mine := *o
	mine.OnStdout, mine.OnStderr, mine.OnResult, mine.OnError = dup(o.OnStdout), dup(o.OnStderr), dup(o.OnResult), dup(o.OnError)
	release := func() {
		for _, f := range []*capnweb.Stub{mine.OnStdout, mine.OnStderr, mine.OnResult, mine.OnError} {
			f.Close()
		}
	}
	p, err := await(b.life, "code.execute", nil, func(ctx context.Context) (*execution, error) {
		defer release()
		c, err := b.contextOf(ctx, &mine)
		if err != nil {
			return nil, err
		}
		calls := window{ctx: ctx}
		said := func(f *capnweb.Stub) func([]byte) {
			if f == nil {
				return nil
			}
			var d textDecoder
			return func(data []byte) {
				if s := d.decode(data); s != "" {
					calls.call(f, map[string]any{"text": s, "timestamp": time.Now().UnixMilli(), "error": f == mine.OnStderr})
				}
			}
		}
		opts := code.RunOptions{OnStdout: said(mine.OnStdout), OnStderr: said(mine.OnStderr), Timeout: timeout}
		if mine.OnResult != nil {
			opts.OnResult = func(r code.Result) { calls.call(mine.OnResult, shown(r)) }
		}
		if mine.OnError != nil {
			opts.OnError = func(e *code.Error) { calls.call(mine.OnError, raised(e)) }
		}
		out, err := c.Run(ctx, text, opts)
		b.state.use(c.Info().ID)
		if err != nil {
			return nil, err
		}
		calls.wait()
		return finished(text, out), nil
	})
	if err != nil {
		release()
	}
	return p, err
}

// runCodeStream is runCode as a stream of events: stdout, stderr, result, error, and
// execution_complete in the end. A run whose reader leaves is interrupted.
func (b *box) runCodeStream(ctx context.Context, text string, o *runOptions) (*capnweb.ReadableStream, error) {
	if o == nil {
		o = &runOptions{}
	}
	timeout, err := duration("run code", "timeout", o.Timeout)
	if err != nil {
		return nil, err
	}
	c, err := b.contextOf(ctx, o)
	if err != nil {
		return nil, err
	}
	life, cancel := context.WithCancel(context.Background())
	told := make(chan event)
	var failed error // valid when told is closed
	tell := func(e event) {
		e["timestamp"] = timestamp(time.Now())
		select {
		case told <- e:
		case <-life.Done():
		}
	}
	said := func(kind string) func([]byte) {
		var d textDecoder
		return func(data []byte) {
			if s := d.decode(data); s != "" {
				tell(event{"type": kind, "text": s})
			}
		}
	}
	go func() {
		defer close(told)
		out, err := c.Run(life, text, code.RunOptions{
			OnStdout: said("stdout"), OnStderr: said("stderr"), Timeout: timeout,
			OnResult: func(r code.Result) {
				e := event(shown(r))
				e["type"] = "result"
				tell(e)
			},
			OnError: func(e *code.Error) {
				tell(event{"type": "error", "ename": e.Name, "evalue": e.Message, "traceback": e.Traceback})
			},
		})
		b.state.use(c.Info().ID)
		if failed = err; err == nil {
			tell(event{"type": "execution_complete", "execution_count": out.Count})
		}
	}()
	next := func(ctx context.Context) (event, error) {
		select {
		case e, ok := <-told:
			if !ok && failed != nil && !errors.Is(failed, context.Canceled) {
				err := failed
				failed = nil
				return nil, err
			}
			if !ok {
				return nil, io.EOF
			}
			return e, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return eventStream("code.execute", next, cancel), nil
}
