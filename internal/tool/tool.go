package tool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tongs-dev/tongs/sandbox"
)

// Limits of an answer, OpenCode's own defaults (facts: tool_output.max_lines
// and tool_output.max_bytes of its configuration).
const (
	DefaultMaxLines = 2000
	DefaultMaxBytes = 51200
)

// Limits of an answer of the tools that bound what they show by themselves: read
// gives 2,000 lines of a file, and says more around them. OpenCode has to be told
// of these, or it cuts once more at its defaults.
const (
	BoundedMaxLines = 4000
	BoundedMaxBytes = 200_000
)

// Env is where a tool works. The zero value of each optional field is usable.
type Env struct {
	Directory string // absolute: what relative paths are resolved against, and bash runs in
	Worktree  string // absolute: titles are relative to it, and outside it permission is asked; default Directory
	Home      string // what ~ stands for; default $HOME
	OutputDir string // absolute: where output too long for an answer is kept; default /tmp/opencode/output

	Shell   Shell    // runs commands; bash and grep's ripgrep need it
	Bash    string   // path of the shell for bash; default the first of /bin/bash, /usr/bin/bash, /bin/sh
	Environ []string // environment of commands, as in os.Environ; handed to Shell as it is
	Ripgrep string   // absolute path of an rg for grep to use; "": search with code of our own

	// Processors is asked for when a search can use several: how many there are, until done is called.
	// Default: all that the runtime has.
	Processors func() (n int, done func())

	MaxLines int // longest answer in lines; default DefaultMaxLines for bash, else BoundedMaxLines
	MaxBytes int // longest answer in bytes; default DefaultMaxBytes for bash, else BoundedMaxBytes

	// Session and Instructions decide which nested AGENTS.md files read
	// attaches: each once per session. Without Instructions none is attached.
	Session      string
	Instructions *Instructions
}

// Hooks are how a running tool talks back. Both may be nil: without Ask
// everything is allowed, without Progress nothing is told.
type Hooks = sandbox.ToolHooks

// AskRequest is a question whether a tool may do something.
type AskRequest = sandbox.AskRequest

// Result is what a tool gives.
type Result = sandbox.ToolResult

// Attachment is a file that goes to the model beside the output.
type Attachment = sandbox.Attachment

// run is one call of one tool.
type run struct {
	Env
	name  string
	hooks Hooks
}

var tools = map[string]func(context.Context, *run, *args) (Result, error){
	"apply_patch": applyPatch,
	"bash":        bash,
	"edit":        edit,
	"glob":        glob,
	"grep":        grep,
	"list":        list,
	"read":        read,
	"write":       write,
}

// Names lists the tools, sorted.
func Names() []string {
	names := make([]string, 0, len(tools))
	for name := range tools {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Repeatable reports whether the named tool only looks, so that running it twice
// is as good as once.
func Repeatable(name string) bool {
	switch name {
	case "read", "glob", "grep", "list":
		return true
	}
	return false
}

// Call runs the named tool with a JSON object of arguments. It returns when the
// tool has ended, or soon after ctx has: then with sandbox.CodeAborted and the
// message "Tool execution aborted", its processes killed.
//
// An error is what the hooks' Ask returned, or a *sandbox.Error. The Message of
// the latter is written for the model and complete without operation or hint.
func Call(ctx context.Context, env Env, name string, arguments json.RawMessage, hooks Hooks) (Result, error) {
	fn, ok := tools[name]
	if !ok {
		return Result{}, failf(sandbox.CodeToolNotFound, "There is no tool %q. The tools are: %s.", shorten(name, 64), strings.Join(Names(), ", "))
	}
	if err := env.complete(name); err != nil {
		return Result{}, err
	}
	a, err := parseArgs(name, arguments)
	if err != nil {
		return Result{}, err
	}
	r := &run{Env: env, name: name, hooks: hooks}
	res, err := fn(ctx, r, a)
	if ctx.Err() != nil {
		return Result{}, &sandbox.Error{Code: sandbox.CodeAborted, Message: "Tool execution aborted", Err: ctx.Err()}
	}
	if err != nil {
		var no refused
		if errors.As(err, &no) {
			return Result{}, no.error
		}
		var e *sandbox.Error
		if errors.As(err, &e) && e.Op == "" {
			named := *e
			named.Op = "tool " + name
			return Result{}, &named
		}
		return Result{}, err
	}
	if res.Metadata == nil {
		res.Metadata = map[string]any{}
	}
	return cleanResult(res), nil
}

func (e *Env) complete(tool string) error {
	if !strings.HasPrefix(e.Directory, "/") {
		return failf(sandbox.CodeInternal, "the tools have no project directory to work in")
	}
	e.Directory = filepath.Clean(e.Directory)
	if e.Worktree == "" {
		e.Worktree = e.Directory
	}
	e.Worktree = filepath.Clean(e.Worktree)
	if e.OutputDir == "" {
		e.OutputDir = "/tmp/opencode/output"
	}
	lines, bytes := BoundedMaxLines, BoundedMaxBytes
	if tool == "bash" {
		lines, bytes = DefaultMaxLines, DefaultMaxBytes
	}
	if e.MaxLines <= 0 {
		e.MaxLines = lines
	}
	if e.MaxBytes <= 0 {
		e.MaxBytes = bytes
	}
	return nil
}

// ask puts a question; nobody to ask means yes.
func (r *run) ask(ctx context.Context, permission string, patterns, always []string, metadata map[string]any) error {
	if r.hooks.Ask == nil {
		return nil
	}
	err := r.hooks.Ask(ctx, AskRequest{
		Permission: permission,
		Patterns:   cleanStrings(patterns),
		Always:     cleanStrings(always),
		Metadata:   cleanMap(metadata),
	})
	if err != nil {
		return refused{err}
	}
	return nil
}

// refused is what whoever was asked said; Call gives it back as it was said.
type refused struct{ error }

func (r *run) progress(title string, metadata map[string]any) {
	if r.hooks.Progress != nil {
		r.hooks.Progress(title, cleanMap(metadata))
	}
}

// failf makes the error of a tool.
func failf(code sandbox.Code, format string, args ...any) error {
	return &sandbox.Error{Code: code, Message: clean(fmt.Sprintf(format, args...))}
}

// fail gives err the code that a system call's error has, and a message.
func fail(err error, format string, args ...any) error {
	code := sandbox.CodeToolFailed
	var e *sandbox.Error
	if errors.As(sandbox.FileError("", err), &e) {
		code = e.Code
	}
	return &sandbox.Error{Code: code, Message: clean(fmt.Sprintf(format, args...)), Err: err}
}
