// Package sandbox says what a sandbox can do and lets a Go program do it.
//
// A sandbox is an isolated place with its own files, processes and network.
// Inside it one small process, the guest, carries out what is asked; this
// package is the contract (types, interfaces, errors) and the client:
//
//	box, err := sandbox.Connect(ctx, dial) // dial reaches the guest's socket
//	if err != nil { … }
//	defer box.Close()
//	res, err := box.Exec(ctx, sandbox.ExecSpec{
//		ProcessSpec: sandbox.ProcessSpec{Argv: []string{"uname", "-a"}},
//	})
//	fmt.Printf("%s (exit code %d)\n", res.Stdout, res.Exit.Code)
//
// # Paths
//
// Paths are those inside the sandbox. A relative path is resolved against the
// project directory (/home/user/project). File work is done with the rights of
// the sandbox's user, never with more.
//
// # Waiting
//
// Each call takes a context and returns when that context ends. What a call
// does to the thing it waited for is said where it is declared: ending a wait
// ends only the wait; ending Exec or Run kills the command; ending RunTool
// leaves the run alone, because it can be attached to again.
//
// # Errors
//
// What the sandbox refuses or fails is an *Error with a code from the registry
// in this package, the operation, and what to do about it. A broken connection
// is CodeConnectionLost: whatever was running in the sandbox still is.
package sandbox
