package idmap

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/sandbox"
)

// ownID is the calling user in a task: an id beyond those of sandboxes.
const ownID = Full

// Bounds of what goes between a task and who started it, and how long one that was called off may take to
// end before it is killed.
const (
	maxArgument = 128 << 20
	maxAnswer   = 64 << 10
	endPatience = 5 * time.Second
)

// taskName is the first argument of this program when it is started for a task.
const taskName = "tongs-with-ids"

// Descriptors of a task after the usual three.
const (
	argumentFD = 3 + iota
	answerFD
)

// Task is work that this program does in a process of its own, as root of a user namespace in which a Map
// holds and the calling user's own files belong to a higher id: so it reads and writes those files, and
// gives files to the ids of sandboxes. (It has all capabilities there and none on the host.)
//
// A Task is a variable of a package, whose init calls Serve: started for the task, the program does that
// and nothing else.
type Task struct{ Name string }

// Serve carries the task out, and ends the process, if that is what this process was started for. argument
// reads what Run was given into a pointer. The context ends when the starter calls it off or dies.
func (t Task) Serve(work func(ctx context.Context, argument func(any) error) error) {
	if len(os.Args) != 2 || os.Args[0] != taskName || os.Args[1] != t.Name {
		return
	}
	os.Exit(serve(work))
}

func serve(work func(context.Context, func(any) error) error) int {
	unix.CloseOnExec(argumentFD)
	unix.CloseOnExec(answerFD)
	in, out := os.NewFile(argumentFD, "argument"), os.NewFile(answerFD, "answer")
	// The argument comes when the ids are mapped.
	data := json.NewDecoder(io.LimitReader(in, maxArgument))
	var raw json.RawMessage
	if err := data.Decode(&raw); err != nil {
		return 1 // the starter went away, or told why it gave up
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, in) // it ends when the starter closes it, or dies
		cancel()
		time.Sleep(endPatience)
		os.Exit(1)
	}()
	err := becomeRoot()
	if err == nil {
		err = work(ctx, func(v any) error { return json.Unmarshal(raw, v) })
	}
	answer, merr := json.Marshal(toAnswer(err))
	if merr != nil || len(answer) > maxAnswer {
		return 1
	}
	if _, err := out.Write(answer); err != nil {
		return 1
	}
	return 0
}

// becomeRoot makes the process root of its user namespace, in all threads.
func becomeRoot() error {
	if err := syscall.Setgroups(nil); err != nil {
		return os.NewSyscallError("setgroups", err)
	}
	if err := syscall.Setresgid(0, 0, 0); err != nil {
		return os.NewSyscallError("setresgid", err)
	}
	if err := syscall.Setresuid(0, 0, 0); err != nil {
		return os.NewSyscallError("setresuid", err)
	}
	unix.Umask(0)
	return nil
}

// Streams are what a task has as its standard input and output. Nil is nothing.
type Streams struct {
	Stdin  io.Reader
	Stdout io.Writer
}

// Run does a task with the ids of m, and gives its error as it was: a *sandbox.Error with its code and hint,
// a system error's number. argument must become JSON of at most 128 MiB. When ctx ends the task is called
// off, and killed if that takes longer than some seconds.
func (t Task) Run(ctx context.Context, m Map, argument any, s Streams) error {
	const op = "work with a sandbox's user ids"
	if m.None() {
		return &sandbox.Error{Code: sandbox.CodeInternal, Op: op, Message: "there is no map"}
	}
	data, err := json.Marshal(argument)
	if err == nil && len(data) >= maxArgument {
		err = fmt.Errorf("an argument of %d bytes, the most is %d", len(data), maxArgument)
	}
	if err != nil {
		return &sandbox.Error{Code: sandbox.CodeInternal, Op: op, Message: err.Error(), Err: err}
	}
	theirs, argW, err := os.Pipe()
	if err != nil {
		return err
	}
	defer theirs.Close()
	defer argW.Close()
	ansR, answer, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ansR.Close()
	defer answer.Close()

	cmd := &exec.Cmd{Path: "/proc/self/exe", Args: []string{taskName, t.Name}, Dir: "/", Env: environ(), Stdin: s.Stdin, Stdout: s.Stdout,
		ExtraFiles: []*os.File{theirs, answer}, WaitDelay: endPatience,
		SysProcAttr: &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWUSER, AmbientCaps: Capabilities()}}
	said := &tail{}
	cmd.Stderr = said
	if err := cmd.Start(); err != nil {
		return startError(op, err)
	}
	theirs.Close()
	answer.Close()
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		argW.Close()
		select {
		case <-ended:
		case <-time.After(2 * endPatience):
			_ = cmd.Process.Kill() // it has ended, or does so now
		}
	})
	defer stop()
	merr := m.apply(ctx, cmd.Process.Pid, true)
	var raw []byte
	var werr, rerr error
	if merr == nil {
		_, werr = argW.Write(append(data, '\n'))
		raw, rerr = io.ReadAll(io.LimitReader(ansR, maxAnswer+1))
	} else {
		_ = cmd.Process.Kill()
	}
	err = cmd.Wait()
	close(ended)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case merr != nil:
		return merr
	}
	var a taskAnswer
	if jerr := json.Unmarshal(raw, &a); jerr != nil || !a.Done {
		return &sandbox.Error{Code: sandbox.CodeInternal, Op: op, Message: fmt.Sprintf("%s ended before it was done: %v %s", t.Name, errors.Join(err, werr, rerr, jerr), said.text), Err: err}
	}
	return a.err()
}

// environ is what a task has of the environment: where programs and temporary files are, no keys.
func environ() []string {
	var all []string
	for _, name := range []string{"PATH", "TMPDIR", "GODEBUG", "GOCOVERDIR"} {
		if v, ok := os.LookupEnv(name); ok {
			all = append(all, name+"="+v)
		}
	}
	return all
}

// startError says why no user namespace could be made.
func startError(op string, err error) error {
	e := &sandbox.Error{Code: sandbox.CodeMachineNotSupported, Op: op, Message: "no user namespace can be made: " + err.Error(), Hint: "`tongs doctor` says what is missing", Err: err}
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOMEM) {
		e.Code, e.Hint = sandbox.CodeNoSpace, "the machine is out of memory or processes: end something, or raise `ulimit -u`"
	}
	return e
}

// Capabilities are all that a process in a new user namespace has, for it to keep when it runs a program
// before its user id is mapped: ambient ones (capabilities(7)).
func Capabilities() []uintptr {
	var all []uintptr
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if _, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0); err == nil { // this kernel knows it
			all = append(all, c)
		}
	}
	return all
}

// tail keeps the last that a task said on its standard error.
type tail struct{ text []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p...)
	if n := len(t.text) - 2000; n > 0 {
		t.text = append(t.text[:0], t.text[n:]...)
	}
	return len(p), nil
}

// taskAnswer is what a task gives back.
type taskAnswer struct {
	Done    bool          `json:"done"`
	Failed  bool          `json:"failed,omitempty"`
	Code    sandbox.Code  `json:"code,omitempty"`
	Op      string        `json:"op,omitempty"`
	Message string        `json:"message,omitempty"`
	Hint    string        `json:"hint,omitempty"`
	Errno   syscall.Errno `json:"errno,omitempty"`
}

func toAnswer(err error) taskAnswer {
	a := taskAnswer{Done: true}
	if err == nil {
		return a
	}
	a.Failed = true
	var e *sandbox.Error
	if errors.As(err, &e) {
		a.Code, a.Op, a.Message, a.Hint = e.Code, e.Op, e.Message, e.Hint
	} else {
		a.Message = err.Error()
	}
	a.Message = a.Message[:min(len(a.Message), maxAnswer/4)]
	errors.As(err, &a.Errno)
	return a
}

func (a taskAnswer) err() error {
	if !a.Failed {
		return nil
	}
	var cause error
	if a.Errno != 0 {
		cause = a.Errno
	}
	if a.Code != "" {
		return &sandbox.Error{Code: a.Code, Op: a.Op, Message: a.Message, Hint: a.Hint, Err: cause}
	}
	return &taskError{a.Message, cause}
}

// taskError is a system's error from a task, with the words that it had there.
type taskError struct {
	message string
	cause   error
}

func (e *taskError) Error() string { return e.message }
func (e *taskError) Unwrap() error { return e.cause }
