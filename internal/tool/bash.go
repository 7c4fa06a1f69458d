package tool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/tongs-dev/tongs/internal/files"
	"github.com/tongs-dev/tongs/sandbox"
)

const (
	defaultTimeout = 120 * time.Second
	maxTimeout     = 24 * time.Hour
	// timeoutGrace is how much later than asked a command is stopped, so that
	// one that ends just in time is not.
	timeoutGrace = 100 * time.Millisecond
	// maxCommand is the longest argument the kernel takes (MAX_ARG_STRLEN, its
	// NUL included).
	maxCommand = 128 << 10
	// shownOutput is how much of the output's end clients are shown, in UTF-16
	// units.
	shownOutput = 30000
	// progressEvery spaces the updates that show output while it comes.
	progressEvery = 100 * time.Millisecond
)

// bash runs a command line.
func bash(ctx context.Context, r *run, a *args) (Result, error) {
	command := a.str("command", true)
	millis, timed := a.integer("timeout", 1)
	workdir := a.path("workdir", false)
	switch {
	case a.err != nil:
	case strings.ContainsRune(command, 0):
		a.fail(`"command" contains a NUL byte, which no command line can`)
	case len(command) >= maxCommand:
		a.fail(`"command" is longer than 131071 bytes, more than a command line can be. Write it to a file and run that`)
	}
	if a.err != nil {
		return Result{}, a.err
	}
	if r.Shell == nil {
		return Result{}, failf(sandbox.CodeNotSupported, "there is nothing here that runs commands")
	}
	timeout := defaultTimeout
	if timed {
		timeout = maxTimeout
		if millis < maxTimeout.Milliseconds() {
			timeout = time.Duration(millis) * time.Millisecond
		}
	}
	dir := r.Directory
	if workdir != "" {
		dir = r.resolve(workdir)
	}
	if err := r.askBash(ctx, command, dir); err != nil {
		return Result{}, err
	}
	if st, err := files.Stat(dir); errors.Is(err, files.ErrMagicLink) {
		return Result{}, fail(err, "The working directory %s cannot be used: %v.", dir, files.ErrMagicLink)
	} else if err != nil || !st.IsDir() {
		return Result{}, failf(sandbox.CodeFileNotFound, "The working directory %s does not exist or is not a directory.", dir)
	}
	b := &bashRun{r: r}
	b.output = capture{r: r, limit: r.MaxBytes}
	b.show(true)
	exit, err := r.Shell.Run(ctx, Command{
		Argv:    []string{r.shellPath(), "-c", command},
		Dir:     dir,
		Env:     r.Environ,
		Timeout: timeout + timeoutGrace,
		Notices: true,
	}, b.write)
	b.stop()
	if ctx.Err() != nil {
		b.output.write([]byte("\n\n<shell_metadata>\nUser aborted the command\n</shell_metadata>"))
		b.show(true)
		b.output.close(false)
		return Result{}, ctx.Err()
	}
	if err != nil {
		b.output.close(false)
		return Result{}, fail(err, "The command could not be run: %v", err)
	}
	return b.result(command, exit, timeout), nil
}

// bashRun is a command that runs.
type bashRun struct {
	r *run

	mu      sync.Mutex
	output  capture
	shown   time.Time   // when output was last told
	timer   *time.Timer // for output not yet told
	stopped bool
}

func (b *bashRun) write(p []byte) {
	b.mu.Lock()
	b.output.write(p)
	b.mu.Unlock()
	b.show(false)
}

// show tells what there is of the output: at most once in progressEvery, and
// what came in between a little later.
func (b *bashRun) show(now bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	wait := progressEvery - time.Since(b.shown)
	switch {
	case now || wait <= 0:
		b.tell()
	case b.timer == nil && !b.stopped:
		b.timer = time.AfterFunc(wait, b.late)
	}
}

func (b *bashRun) late() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.timer = nil
	if !b.stopped { // nothing is told after the end
		b.tell()
	}
}

func (b *bashRun) tell() {
	b.shown = time.Now()
	b.r.progress("", map[string]any{"output": shownTail(b.output.text())})
}

// stop ends the late updates.
func (b *bashRun) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopped = true
	if b.timer != nil {
		b.timer.Stop()
		b.timer = nil
	}
}

// shownTail gives the end of an output as clients are shown it.
func shownTail(text string) string {
	if utf16Len(text) <= shownOutput {
		return text
	}
	units := 0
	for i := len(text); i > 0; {
		start := i - 1
		for start > 0 && text[start]&0xc0 == 0x80 {
			start--
		}
		units++
		if i-start == 4 {
			units++
		}
		if units > shownOutput {
			return "...\n\n" + text[i:]
		}
		i = start
	}
	return text
}

func (b *bashRun) result(command string, exit Exit, timeout time.Duration) Result {
	b.mu.Lock()
	defer b.mu.Unlock()
	notes := exit.Notices
	if exit.TimedOut {
		notes = append(notes, fmt.Sprintf("shell tool terminated command after exceeding timeout %d ms. If this command is expected to take longer and is not waiting for interactive input, retry with a larger timeout value in milliseconds.", timeout.Milliseconds()))
	} else if exit.Signal != "" {
		notes = append(notes, "The command was ended by signal "+exit.Signal)
	}
	foot := ""
	if len(notes) > 0 {
		foot = "\n\n<shell_metadata>\n" + strings.Join(notes, "\n") + "\n</shell_metadata>"
	}
	text := b.output.text()
	maxLines := b.r.MaxLines - strings.Count(foot, "\n")
	maxBytes := b.r.MaxBytes - len(foot)
	cut := b.output.dropped || len(text) > maxBytes || strings.Count(text, "\n") >= maxLines
	kept := b.output.close(cut)
	shown := shownTail(text)
	if cut {
		head := "...output truncated...\n\n"
		if kept != "" {
			head += "Full output saved to: " + kept + "\n\n"
		}
		text = head + tailOf(text, maxLines-strings.Count(head, "\n"), maxBytes-len(head))
	}
	if text == "" {
		text = "(no output)"
	}
	text += foot
	if shown == "" {
		shown = text
	}
	m := map[string]any{"output": shown, "exit": nil, "truncated": cut}
	if exit.Code != nil && !exit.TimedOut {
		m["exit"] = *exit.Code
	}
	if cut && kept != "" {
		m["outputPath"] = kept
	}
	return Result{Title: command, Output: text, Metadata: m}
}

// askBash asks for what a command line is seen to do: touch directories outside
// the project, and run commands.
func (r *run) askBash(ctx context.Context, command, dir string) error {
	if r.hooks.Ask == nil {
		return nil
	}
	seen := scanCommand(command)
	outside := uniqueList{}
	for _, words := range seen.calls {
		for _, arg := range fileArguments(words) {
			path, ok := r.argumentPath(arg, dir)
			if !ok {
				continue
			}
			for _, path := range []string{path, realPath(path)} {
				if r.inside(path) {
					continue
				}
				if st, err := files.Stat(path); err != nil || !st.IsDir() {
					path = filepath.Dir(path)
				}
				outside.add(path)
			}
		}
	}
	for _, path := range []string{dir, realPath(dir)} {
		if !r.inside(path) {
			outside.add(path)
		}
	}
	if len(outside.list) > 0 {
		globs := make([]string, len(outside.list))
		for i, path := range outside.list {
			globs[i] = filepath.Join(path, "*")
		}
		err := r.ask(ctx, "external_directory", globs, globs, map[string]any{
			"command": command, "directories": outside.list, "patterns": globs,
		})
		if err != nil {
			return err
		}
	}
	patterns, always := seen.permission(command)
	if len(patterns) == 0 {
		return nil
	}
	return r.ask(ctx, "bash", patterns, always, map[string]any{"command": command})
}

// argumentPath makes an argument of a command a path, as far as it can be known
// without running a shell.
func (r *run) argumentPath(arg, dir string) (string, bool) {
	if arg == "~" || strings.HasPrefix(arg, "~/") {
		home := r.Home
		if home == "" {
			home = os.Getenv("HOME")
		}
		arg = home + arg[1:]
	}
	if i := strings.IndexAny(arg, "?*["); i >= 0 {
		arg = arg[:i] // the part before the first wildcard says where
	}
	if arg == "" || strings.HasPrefix(arg, "(") || strings.ContainsAny(arg, "$`\x00") {
		return "", false
	}
	if !filepath.IsAbs(arg) {
		arg = filepath.Join(dir, arg)
	}
	return filepath.Clean(arg), true
}

// uniqueList keeps the order in which strings were first added.
type uniqueList struct {
	list []string
	seen map[string]bool
}

func (u *uniqueList) add(s string) {
	if u.seen[s] {
		return
	}
	if u.seen == nil {
		u.seen = map[string]bool{}
	}
	u.seen[s] = true
	u.list = append(u.list, s)
}
