package shell

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

// Command is one command of a session. Only Script is needed.
type Command struct {
	// Script is given to bash -c, whole; up to 128 KiB.
	Script string

	// Dir is for this command only, relative to the session's directory. A
	// directory that the command itself changes to is the session's afterwards
	// all the same.
	Dir string
	// Env is on top of the session's variables, for this command only.
	Env map[string]string

	// The rest is as in sandbox.ExecSpec.
	ID        string
	Input     []byte
	Stdin     bool
	Merge     bool
	Timeout   time.Duration
	Mode      sandbox.Mode
	LogBytes  int64
	MaxOutput int64
	Labels    map[string]string
	Terminal  *sandbox.TerminalSize
}

// Result is what a command gave.
type Result struct {
	sandbox.ExecResult
	// Kept: the directory and variables that the command left are the
	// session's. False when it ended in a way that says nothing of them.
	Kept bool
}

// Exec runs a command and collects its output, as sandbox.Client.Exec does: when
// ctx ends the command is killed, and what was printed comes back with the
// context's error. CodeSessionDestroyed when the session has been deleted.
func (s *Session) Exec(ctx context.Context, c Command) (*Result, error) {
	const op = "exec"
	spec, report, err := s.spec(ctx, op, c)
	if err != nil {
		return nil, err
	}
	res, err := s.box.Exec(ctx, sandbox.ExecSpec{ProcessSpec: spec, Input: c.Input, MaxOutput: c.MaxOutput})
	if res == nil {
		s.forget(ctx, report)
		return nil, err
	}
	r := &Result{ExecResult: *res}
	if sandbox.CodeOf(err) == sandbox.CodeConnectionLost {
		return r, err // it may be running: the next Open sees to it
	}
	var kerr error
	r.Kept, kerr = s.keep(ctx, op, report)
	return r, cmp.Or(err, kerr)
}

// Run runs a command, passes stdin to it and its output to the writers, as
// sandbox.Client.Run does. kept is as Result.Kept.
func (s *Session) Run(ctx context.Context, c Command, stdin io.Reader, stdout, stderr io.Writer) (exit sandbox.Exit, kept bool, err error) {
	const op = "run"
	spec, report, err := s.spec(ctx, op, c)
	if err != nil {
		return sandbox.Exit{}, false, err
	}
	exit, err = s.box.Run(ctx, spec, stdin, stdout, stderr)
	if sandbox.CodeOf(err) == sandbox.CodeConnectionLost {
		return exit, false, err
	}
	kept, kerr := s.keep(ctx, op, report)
	return exit, kept, cmp.Or(err, kerr)
}

// Start begins a command in the session's directory and with its variables, and
// leaves it running. It changes nothing of the session. The process is one of the
// sandbox like any other.
func (s *Session) Start(ctx context.Context, c Command) (*sandbox.ProcessInfo, error) {
	spec, _, err := s.spec(ctx, "start", c)
	if err != nil {
		return nil, err
	}
	delete(spec.Env, "BASH_ENV")
	delete(spec.Env, reportVariable)
	return s.box.Start(ctx, spec)
}

// spec makes a process of a command. report is the file of which bash will tell
// how it ended.
func (s *Session) spec(ctx context.Context, op string, c Command) (spec sandbox.ProcessSpec, report string, err error) {
	if err := checkVariables(op, c.Env, nil); err != nil {
		return spec, "", err
	}
	st, _, err := s.load(ctx, op)
	if err != nil {
		return spec, "", err
	}
	report = s.dir + "/run-" + strconv.FormatUint(rand.Uint64(), 36)
	env := maps.Clone(st.Set)
	if env == nil {
		env = map[string]string{}
	}
	dir := st.Dir
	if c.Dir != "" {
		dir = join(st.Dir, c.Dir)
	} else if dir != "" {
		env["PWD"] = dir // the way it was named, should it lead through a link
	}
	maps.Copy(env, c.Env)
	env["BASH_ENV"], env[reportVariable] = s.dir+"/startup", report
	labels := maps.Clone(c.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[label] = s.name
	return sandbox.ProcessSpec{
		ID: c.ID, Argv: []string{st.Bash, "-c", c.Script}, Env: env, Unset: st.Unset, Dir: dir, Stdin: c.Stdin, Merge: c.Merge,
		Terminal: c.Terminal, Timeout: c.Timeout, Mode: c.Mode, LogBytes: c.LogBytes, Labels: labels,
	}, report, nil
}

// keepTimeout bounds the work on the state after a command whose context has ended.
const keepTimeout = 10 * time.Second

// keep applies what a command that has ended has changed.
func (s *Session) keep(ctx context.Context, op, report string) (bool, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keepTimeout)
	defer cancel()
	defer s.forget(ctx, report)
	data, info, err := s.box.ReadFile(ctx, report, sandbox.ReadOptions{Length: maxState})
	if sandbox.CodeOf(err) == sandbox.CodeFileNotFound {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if info.Size > maxState {
		return false, sandbox.Errf(sandbox.CodeInvalidArgument, op, fmt.Sprintf("the command ran, but left variables of more than %d MiB, which were not kept", maxState>>20), "keep them in files")
	}
	c, ok := parseReport(data)
	if !ok {
		return false, nil
	}
	if c.empty() {
		return true, nil
	}
	err = s.update(ctx, op, func(st *State) { st.apply(c) })
	if sandbox.CodeOf(err) == sandbox.CodeSessionDestroyed {
		return false, nil // the command has ended well all the same
	}
	return err == nil, err
}

// forget removes a report. One that stays is the next Open's.
func (s *Session) forget(ctx context.Context, report string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keepTimeout)
	defer cancel()
	names := make(chan struct{})
	go func() {
		defer close(names)
		_ = s.box.RemoveFile(ctx, report+namesSuffix, false)
	}()
	_ = s.box.RemoveFile(ctx, report, false)
	<-names
}

// adopt applies what commands have changed whose caller did not live to see it, in
// the order in which they have ended.
func (s *Session) adopt(ctx context.Context) error {
	var reports []sandbox.FileInfo
	for opts := (sandbox.ListOptions{}); ; {
		page, err := s.box.ListFiles(ctx, s.dir, opts)
		if err != nil {
			return err
		}
		for _, e := range page.Entries {
			if e.Type == sandbox.TypeFile && strings.HasPrefix(e.Name, "run-") && path.Ext(e.Name) != namesSuffix {
				reports = append(reports, e)
			}
		}
		if page.Next == "" {
			break
		}
		opts.Cursor = page.Next
	}
	slices.SortFunc(reports, func(a, b sandbox.FileInfo) int { return a.Modified.Compare(b.Modified) })
	for _, e := range reports {
		data, _, err := s.box.ReadFile(ctx, e.Path, sandbox.ReadOptions{Length: maxState})
		if err != nil {
			if sandbox.CodeOf(err) == sandbox.CodeFileNotFound {
				continue
			}
			return err
		}
		c, ok := parseReport(data)
		if !ok {
			continue // it runs, or was killed
		}
		if err := s.update(ctx, "open session", func(st *State) { st.apply(c) }); err != nil {
			return err
		}
		s.forget(ctx, e.Path)
	}
	return nil
}
