package tool

import (
	"context"
	"time"

	"github.com/tongs-dev/tongs/internal/files"
)

// Shell runs commands for the tools. It is the only way in which this package
// starts a process, so that whoever owns the processes also reaps and limits
// them.
type Shell interface {
	// Run starts the command without standard input and in a process group of
	// its own, hands what it writes on standard output and error to onOutput
	// in the order written (calls do not overlap; the slice is valid during
	// the call only) and returns when the command itself has exited, also when
	// something it left in the background still holds the pipe, and after the
	// last onOutput. When ctx ends, or after Timeout, it kills the whole group
	// and returns within a few seconds.
	//
	// The error is about starting or running it, ctx.Err() when ctx ended; a
	// command that failed by itself is an Exit.
	Run(ctx context.Context, cmd Command, onOutput func([]byte)) (Exit, error)
}

// Command is what a Shell runs.
type Command struct {
	Argv    []string
	Dir     string        // absolute
	Env     []string      // as in os.Environ
	Timeout time.Duration // none if 0
	Notices bool          // the caller passes Exit.Notices on
}

// Exit is how a command ended. Exactly one of Code and Signal is set, except
// after a timeout, where both may be empty.
type Exit struct {
	Code     *int   // exit code
	Signal   string // name of the signal that ended it, "SIGKILL"
	TimedOut bool   // it was killed after Command.Timeout

	// Notices are facts about the sandbox that whoever asked for the command
	// should be told: that what earlier commands left running was ended, say.
	// Only a command with Command.Notices gets them.
	Notices []string
}

// shellPath gives the shell that bash runs.
func (r *run) shellPath() string {
	if r.Bash != "" {
		return r.Bash
	}
	for _, path := range []string{"/bin/bash", "/usr/bin/bash"} {
		if st, err := files.Stat(path); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return path
		}
	}
	return "/bin/sh"
}
