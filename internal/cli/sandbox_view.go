package cli

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/tongs-dev/tongs/sandbox"
	"github.com/tongs-dev/tongs/sandbox/remote"
)

// viewer passes a process's output to our own streams and our input to it, across broken connections.
type viewer struct {
	s        *streams
	g        *Globals
	api      *APIFlags
	name     string
	terminal bool       // the process has one, and so have we or we pretend to
	input    bool       // standard input is passed
	json     bool       // output as lines of JSON
	detach   *detachKey // nil: there is no leaving without ending
	forget   bool       // the process is not remembered after its end

	mu   sync.Mutex
	host *remote.Host
	box  *sandbox.Client
}

// How long a lost connection is tried to be made again, and how long between two attempts.
const (
	reconnectTimeout = 3 * time.Minute
	reconnectPause   = 250 * time.Millisecond
)

// open connects.
func (v *viewer) open(ctx context.Context) error {
	host, box, err := v.api.open(ctx, v.g, v.name)
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.host, v.box = host, box
	return nil
}

func (v *viewer) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.box.Close()
	v.host.Close()
}

func (v *viewer) client() *sandbox.Client {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.box
}

// errStartedAnew says that a sandbox has lost its processes.
var errStartedAnew = sandbox.Errf(sandbox.CodeProcessNotFound, "connect", "the sandbox was started anew meanwhile, and what ran in it is gone", "run it again")

// again connects anew after a loss. With errStartedAnew it has, to a sandbox in which nothing runs any more.
func (v *viewer) again(ctx context.Context) error {
	before := v.client().Incarnation()
	fmt.Fprint(v.s.stderr, v.newline(), "tongs: the connection broke; waiting for tongs to come back (what runs goes on)", v.newline())
	ctx, cancel := context.WithTimeout(ctx, reconnectTimeout)
	defer cancel()
	for {
		v.close()
		err := v.open(ctx)
		if err == nil {
			if v.client().Incarnation() != before {
				return errStartedAnew
			}
			return nil
		}
		if isNotFound(err) || sandbox.CodeOf(err) == remote.CodeUnauthorized {
			return err
		}
		select {
		case <-time.After(reconnectPause):
		case <-ctx.Done():
			return err
		}
	}
}

// newline ends a line on a terminal that is in raw mode, too.
func (v *viewer) newline() string {
	if v.terminal {
		return "\r\n"
	}
	return "\n"
}

func newProcessID(what string) string { return what + "-" + strconv.FormatUint(rand.Uint64(), 36)[:6] }

// run starts a process and attaches to it. The error is nil, or an exitStatus when it has ended.
func (v *viewer) run(ctx context.Context, spec sandbox.ProcessSpec) (error, error) {
	p, err := v.client().Start(ctx, spec)
	if err != nil {
		return nil, err
	}
	return v.attach(ctx, p, 0)
}

// errNoReader says that nobody reads our output any more.
var errNoReader = errors.New("nobody reads the output")

// errDetached ends an attachment whose process goes on.
var errDetached = errors.New("detached")

// attach follows a process from an offset of its output on, until it ends or the person leaves it.
func (v *viewer) attach(ctx context.Context, p *sandbox.ProcessInfo, offset int64) (error, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if v.terminal {
		restore, err := rawMode(v.s.stdin)
		if err != nil {
			return nil, err
		}
		defer restore()
		stop := watchSize(v.s, func(size sandbox.TerminalSize) { _ = v.client().Resize(ctx, p.ID, size) })
		defer stop()
	}
	// Written into, a broken pipe is an error and no longer our end.
	pipes := make(chan os.Signal, 1)
	signal.Notify(pipes, syscall.SIGPIPE)
	defer signal.Stop(pipes)
	interrupts := 0
	giveBack := takeSignals(ctx, func(sig os.Signal) {
		name, ok := signalNames[sig]
		if !ok {
			return
		}
		interrupts++
		if interrupts > 3 { // it will not hear
			go func() { _ = v.client().Kill(ctx, p.ID) }()
			return
		}
		go func() { _ = v.client().Signal(ctx, p.ID, name) }() // it may have ended meanwhile
	})
	defer giveBack()
	if v.input {
		go v.feed(ctx, cancel, p.ID)
	}
	end, err := v.follow(ctx, p.ID, offset)
	switch {
	case errors.Is(context.Cause(ctx), errDetached):
		return errDetached, nil
	case err != nil && ctx.Err() != nil:
		// Told to end, as by a test or a deadline: so is the process.
		kill, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = v.client().Kill(kill, p.ID)
		return nil, context.Cause(ctx)
	case errors.Is(err, errNoReader):
		// As a pipe does: whoever writes into one that nobody reads is ended.
		_ = v.client().Kill(ctx, p.ID)
		return exitStatus(128 + int(syscall.SIGPIPE)), nil
	case err != nil:
		return nil, err
	}
	if v.forget {
		_ = v.client().Remove(ctx, p.ID) // it would be forgotten anyway, later
	}
	return v.ended(end), nil
}

// signalNames are the signals that are passed on.
var signalNames = map[os.Signal]string{
	os.Interrupt: "INT", syscall.SIGTERM: "TERM", syscall.SIGHUP: "HUP",
}

// follow passes the output on, and returns what is known of the process at its end.
func (v *viewer) follow(ctx context.Context, id string, offset int64) (*sandbox.ProcessInfo, error) {
	for {
		out, err := v.client().Output(ctx, id, sandbox.OutputOptions{Offset: offset, Follow: true})
		if err == nil {
			err = v.pass(ctx, out, true)
			offset = out.Offset()
			info := out.Info()
			out.Close()
			if err == nil {
				if info == nil {
					return nil, sandbox.Errf(sandbox.CodeInternal, "output", "the process has ended without a status", "")
				}
				return info, nil
			}
		}
		if sandbox.CodeOf(err) != sandbox.CodeConnectionLost || ctx.Err() != nil {
			return nil, err
		}
		if err := v.again(ctx); err != nil {
			return nil, err
		}
	}
}

// pass writes output to our streams until its end.
func (v *viewer) pass(ctx context.Context, out sandbox.Output, complain bool) error {
	for {
		offset := out.Offset()
		stream, data, dropped, err := out.Next(ctx)
		if dropped > 0 && complain {
			fmt.Fprint(v.s.stderr, "tongs: ", dropped, " bytes of output are missing here", v.newline())
		}
		if len(data) > 0 {
			w := v.s.stdout
			if stream == sandbox.Stderr {
				w = v.s.stderr
			}
			var werr error
			if v.json {
				werr = v.event(stream, offset+dropped, data)
			} else {
				_, werr = w.Write(data)
			}
			switch {
			case errors.Is(werr, syscall.EPIPE):
				return errNoReader
			case werr != nil:
				return fmt.Errorf("write the output: %w", werr)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// outputEvent is a piece of output as JSON: text where it is text, else base64.
type outputEvent struct {
	Type   string `json:"type"` // stdout, stderr
	Offset int64  `json:"offset"`
	Text   string `json:"text,omitempty"`
	Base64 string `json:"base64,omitempty"`
}

func (v *viewer) event(stream sandbox.Stream, offset int64, data []byte) error {
	e := outputEvent{Type: "stdout", Offset: offset}
	if stream == sandbox.Stderr {
		e.Type = "stderr"
	}
	if utf8.Valid(data) {
		e.Text = string(data)
	} else {
		e.Base64 = base64.StdEncoding.EncodeToString(data)
	}
	return json.NewEncoder(v.s.stdout).Encode(e)
}

// ended makes an exit status of how a process has ended.
func (v *viewer) ended(info *sandbox.ProcessInfo) error {
	if info.Exit == nil {
		return exitStatus(exitTongs)
	}
	if v.json {
		line := struct {
			Type string `json:"type"` // exit
			ID   string `json:"id"`
			sandbox.Exit
		}{"exit", info.ID, *info.Exit}
		if err := json.NewEncoder(v.s.stdout).Encode(line); err != nil {
			return err
		}
	}
	switch {
	case info.Exit.TimedOut:
		fmt.Fprint(v.s.stderr, "tongs: ended after the time that --timeout gave it", v.newline())
		return exitStatus(exitTimeout)
	case info.Exit.OutOfMemory:
		fmt.Fprint(v.s.stderr, "tongs: ended by the kernel: the sandbox was out of memory", v.newline())
	}
	if code := info.Exit.ShellCode(); code != 0 {
		return exitStatus(code)
	}
	return nil
}

// feed passes standard input. It is not waited for: nothing can interrupt its reading. Of several who
// view a terminal, the one who types has its input.
func (v *viewer) feed(ctx context.Context, detach context.CancelCauseFunc, id string) {
	var w io.WriteCloser
	buf := make([]byte, 32<<10)
	for {
		n, err := v.s.stdin.Read(buf)
		data, left := buf[:n], false
		if v.detach != nil {
			data, left = v.detach.filter(data)
		}
		if len(data) > 0 {
			if w = v.put(ctx, w, id, data); w == nil {
				return // it takes no more: its own affair
			}
		}
		if left {
			detach(errDetached)
			return
		}
		if err != nil {
			if w == nil {
				w, _ = v.client().Stdin(ctx, id) // it may have ended
			}
			if w != nil {
				_ = w.Close() // its end-of-file
			}
			return
		}
	}
}

// put writes input, with w or, where that is nil or not the one any more, a new writer. It returns the
// one to go on with; nil if there is no more to be written.
func (v *viewer) put(ctx context.Context, w io.WriteCloser, id string, data []byte) io.WriteCloser {
	for range 3 {
		if w == nil {
			var err error
			if w, err = v.client().Stdin(ctx, id); err != nil {
				return nil // it may have ended already; how is told elsewhere
			}
		}
		_, err := w.Write(data)
		switch {
		case err == nil:
			return w
		case sandbox.CodeOf(err) == sandbox.CodeStdinTaken && v.terminal:
			w = nil // another viewer has typed: take it back
		case sandbox.CodeOf(err) == sandbox.CodeConnectionLost && ctx.Err() == nil:
			return v.feedAgain(ctx, id)
		default:
			return nil
		}
	}
	return nil
}

// feedAgain opens the input after a lost connection, if it is a terminal's: what was typed and lost
// is seen to be missing. Of other input nobody knows what has arrived. A command that waits for the
// rest would wait for ever, and one that got an end-of-file would take a part for the whole: it is killed.
func (v *viewer) feedAgain(ctx context.Context, id string) io.WriteCloser {
	ctx, cancel := context.WithTimeout(ctx, reconnectTimeout)
	defer cancel()
	if !v.terminal {
		fmt.Fprint(v.s.stderr, "tongs: the connection broke while input was passed; the command would wait for the rest in vain, and is killed\n")
	}
	for {
		if v.terminal {
			if w, err := v.client().Stdin(context.WithoutCancel(ctx), id); err == nil {
				return w
			}
		} else if err := v.client().Kill(ctx, id); sandbox.CodeOf(err) != sandbox.CodeConnectionLost && ctx.Err() == nil {
			return nil // it is dead, or was before
		}
		select {
		case <-time.After(reconnectPause):
		case <-ctx.Done():
			return nil
		}
	}
}
