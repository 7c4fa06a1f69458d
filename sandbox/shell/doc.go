// Package shell keeps sessions of a shell in a sandbox: a working directory and
// exported variables that one command changes and the next one finds.
//
// Each command is a process of its own, `bash -c`, so that nothing it does can
// harm the session: `exit 3`, `set -e; false`, a syntax error or a quote that is
// never closed end that command with its status, and the session goes on. When a
// command ends, its bash reports the directory and the variables by way of a file,
// never among its output; what the command has changed is then the session's.
//
//	s, err := shell.Create(ctx, box, shell.Spec{Name: "build"})
//	res, err := s.Exec(ctx, shell.Command{Script: "cd src && export CGO_ENABLED=0"})
//	res, err = s.Exec(ctx, shell.Command{Script: "go build ./..."}) // there, with it
//
// # What persists
//
// The working directory and exported variables, of any command that bash ends
// itself: at its last line, by exit, by set -e, after an error of syntax, at
// SIGTERM, SIGINT or SIGHUP (a timeout is one). A command changes nothing if it
// ends by SIGKILL, replaces the shell by exec, or sets a trap for EXIT of its own;
// Result.Kept then is false. Shell options, functions, aliases, unexported
// variables and file descriptors are the command's own, as are the variables _,
// SHLVL and BASH_ENV, and values that are no UTF-8.
//
// # At the same time
//
// Commands of one session run beside each other and wait for nothing. Each starts
// with the session's state at its start; what it has changed is applied when it
// ends, and nothing else: of two that change the same thing, the last to end wins.
//
// # Where it is
//
// A session is a directory of the sandbox, ~/.local/state/tongs/shell/NAME, mode
// 0700. It outlives this process and the sandbox's stop, and another process can
// open it by its name. When this process is killed while a command runs, the
// command goes on, and the next Open applies what it has changed. A session is no
// boundary: all of a sandbox's sessions have the same user, files and processes.
package shell
