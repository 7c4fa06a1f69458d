package code

import (
	"bufio"
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

//go:embed driver
var drivers embed.FS

// Labels of an interpreter's process.
const (
	labelLanguage = "tongs.code.language"
	labelID       = "tongs.code.id"
)

// An interpreter is a process in the sandbox and the two ways to it: a socket for
// requests and results, and the log for what the code prints.
type interpreter struct {
	box     *sandbox.Client
	process *sandbox.ProcessInfo
	conn    net.Conn
	out     sandbox.Output
	hello   message
	stop    context.CancelFunc

	lines chan message  // from the socket; closed when it has ended
	dead  chan struct{} // closed when the log has ended, or the connection to it

	mu      sync.Mutex
	watch   map[sandbox.Stream]*scanner
	marked  chan sandbox.Stream // a mark that was waited for
	printed func(sandbox.Stream, []byte)
	stderr  []byte // the last of what was printed between runs, for errors
	ended   *sandbox.ProcessInfo
	err     error
}

// message is a line of the driver's protocol.
type message struct {
	Op         string            `json:"op,omitempty"`
	Code       string            `json:"code,omitempty"`
	Event      string            `json:"event,omitempty"`
	ID         string            `json:"id,omitempty"`
	Version    string            `json:"version,omitempty"`
	TypeScript bool              `json:"typescript,omitempty"`
	Final      bool              `json:"final,omitempty"`
	Data       map[string]string `json:"data,omitempty"`
	Name       string            `json:"name,omitempty"`
	Message    string            `json:"message,omitempty"`
	Traceback  []string          `json:"traceback,omitempty"`
}

func dirOf(id string) string     { return "/tmp/tongs-code-" + id }
func socketOf(id string) string  { return dirOf(id) + "/socket" }
func processOf(id string) string { return "tongs-code-" + id }

// programs that are an interpreter of the language, with the name of the driver.
func programs(l Language) (file string, argv [][]string) {
	if l == Python {
		return "python.py", [][]string{{"python3", "-u"}, {"python", "-u"}}
	}
	return "node.js", [][]string{{"node", "--disable-warning=ExperimentalWarning"}, {"node", "--no-warnings"}}
}

func notAvailable(l Language, why string) error {
	e := &sandbox.Error{Op: "create code context", Message: why, Hint: "use an image that has it"}
	switch l {
	case Python:
		e.Code = sandbox.CodePythonNotAvailable
	case JavaScript:
		e.Code = sandbox.CodeJavaScriptNotAvailable
	default:
		e.Code = sandbox.CodeTypeScriptNotAvailable
	}
	return e
}

// startInterpreter starts a process and connects to it.
func startInterpreter(ctx context.Context, box *sandbox.Client, spec Spec) (*interpreter, error) {
	file, commands := programs(spec.Language)
	script, err := drivers.ReadFile("driver/" + file)
	if err != nil {
		return nil, err
	}
	dir := dirOf(spec.ID)
	if err := box.RemoveFile(ctx, dir, true); err != nil && sandbox.CodeOf(err) != sandbox.CodeFileNotFound {
		return nil, err
	}
	if err := box.Mkdir(ctx, dir, true); err != nil {
		return nil, err
	}
	if err := box.Chmod(ctx, dir, 0o700); err != nil {
		return nil, err
	}
	if _, err := box.WriteFile(ctx, dir+"/"+file, script, sandbox.WriteOptions{}); err != nil {
		return nil, err
	}
	var last error
	for _, argv := range commands {
		in, err := launch(ctx, box, spec, append(argv, dir+"/"+file))
		if err == nil {
			return in, nil
		}
		if last == nil || sandbox.CodeOf(err) != sandbox.CodeCommandNotFound {
			last = err
		}
		if code := sandbox.CodeOf(err); code != sandbox.CodeCommandNotFound && code != sandbox.CodeInterpreterCrashed || ctx.Err() != nil {
			break
		}
	}
	_ = box.RemoveFile(context.WithoutCancel(ctx), dir, true)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	var e *sandbox.Error
	if errors.As(last, &e) {
		switch e.Code {
		case sandbox.CodeCommandNotFound:
			return nil, notAvailable(spec.Language, "the sandbox has no "+commands[0][0])
		case sandbox.CodeInterpreterCrashed:
			return nil, notAvailable(spec.Language, commands[0][0]+" in the sandbox can't be used: "+e.Message)
		}
	}
	return nil, last
}

func launch(ctx context.Context, box *sandbox.Client, spec Spec, argv []string) (*interpreter, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	ready := newMark()
	env := map[string]string{"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", "MPLBACKEND": "Agg", "NODE_DISABLE_COLORS": "1", "NO_COLOR": "1"}
	for k, v := range spec.Env {
		env[k] = v
	}
	_ = box.Remove(ctx, processOf(spec.ID)) // one that has ended
	p, err := box.Start(ctx, sandbox.ProcessSpec{
		ID: processOf(spec.ID), Argv: append(argv, socketOf(spec.ID), ready, string(spec.Language)), Dir: spec.Dir, Env: env, Unset: []string{"NODE_OPTIONS", "PYTHONSTARTUP"},
		Mode: sandbox.Lossless, LogBytes: 4 << 20, Labels: map[string]string{labelLanguage: string(spec.Language), labelID: spec.ID},
	})
	if err != nil {
		return nil, err
	}
	in, err := reach(ctx, box, p, ready)
	if err != nil {
		_ = box.Remove(context.WithoutCancel(ctx), p.ID)
		return nil, err
	}
	if spec.Language == TypeScript && !in.hello.TypeScript {
		in.kill(ctx)
		return nil, notAvailable(TypeScript, "node "+in.hello.Version+" can't take the types out of TypeScript: that needs 22.13 or later")
	}
	return in, nil
}

// reach connects to a process. With a mark, it is one that is being started, and the
// mark says when it listens.
func reach(ctx context.Context, box *sandbox.Client, p *sandbox.ProcessInfo, ready string) (*interpreter, error) {
	const op = "create code context"
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	in := &interpreter{box: box, process: p, stop: stop, lines: make(chan message, 16), dead: make(chan struct{}),
		watch: map[sandbox.Stream]*scanner{}, marked: make(chan sandbox.Stream, 4)}
	out, err := box.Output(ctx, p.ID, sandbox.OutputOptions{Offset: p.LogStart, Follow: true})
	if err != nil {
		stop()
		return nil, err
	}
	in.out = out
	if ready != "" {
		in.expect(ready)
	}
	go in.readOutput(life)
	fail := func(err error) (*interpreter, error) {
		in.close()
		return nil, err
	}
	for marks := 0; ready != "" && marks < 2; marks++ { // of both streams
		select {
		case <-in.marked:
		case <-in.dead:
			return fail(in.crash(op))
		case <-ctx.Done():
			return fail(sandbox.Errf(sandbox.CodeInterpreterNotReady, op, "the interpreter did not start in time", "try again"))
		}
	}
	if in.conn, err = box.Dial(ctx, "unix", socketOf(p.Labels[labelID])); err != nil {
		return fail(err)
	}
	go in.readLines()
	select {
	case m, ok := <-in.lines:
		if !ok || m.Event != "hello" {
			return fail(in.crash(op))
		}
		in.hello = m
	case <-ctx.Done():
		return fail(sandbox.Errf(sandbox.CodeInterpreterNotReady, op, "the interpreter did not answer in time", "another caller's code may keep it busy"))
	}
	return in, nil
}

// readOutput passes on what is printed, until the process has ended.
func (in *interpreter) readOutput(ctx context.Context) {
	defer close(in.dead)
	defer in.out.Close()
	for {
		stream, data, _, err := in.out.Next(ctx)
		if len(data) > 0 {
			in.passOn(stream, data)
		}
		if err != nil {
			in.mu.Lock()
			if in.ended = in.out.Info(); !errors.Is(err, io.EOF) {
				in.err = err
			}
			in.mu.Unlock()
			return
		}
	}
}

func (in *interpreter) passOn(stream sandbox.Stream, data []byte) {
	in.mu.Lock()
	printed, s := in.printed, in.watch[stream]
	found := false
	if s != nil { // only this goroutine uses it
		data, found = s.feed(data)
	}
	if stream == sandbox.Stderr && printed == nil {
		in.stderr = append(in.stderr, data...)
		in.stderr = in.stderr[max(0, len(in.stderr)-4096):]
	}
	in.mu.Unlock()
	if printed != nil && len(data) > 0 {
		printed(stream, data)
	}
	if found {
		select {
		case in.marked <- stream:
		default:
		}
	}
}

// expect makes marks of both streams come through marked.
func (in *interpreter) expect(mark string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for len(in.marked) > 0 {
		<-in.marked
	}
	text := []byte("\x00tongs:" + mark + "\x00")
	in.watch = map[sandbox.Stream]*scanner{sandbox.Stdout: {mark: text}, sandbox.Stderr: {mark: text}}
}

// listen says who gets what is printed; nil is nobody.
func (in *interpreter) listen(f func(sandbox.Stream, []byte)) {
	in.mu.Lock()
	in.printed = f
	in.mu.Unlock()
}

// readLines takes messages from the socket.
func (in *interpreter) readLines() {
	defer close(in.lines)
	r := bufio.NewReaderSize(in.conn, 64<<10)
	for {
		line, err := readLine(r)
		if err != nil {
			return
		}
		var m message
		if err := json.Unmarshal(line, &m); err != nil {
			_ = in.conn.Close() // the code has broken into the driver
			return
		}
		select {
		case in.lines <- m:
		case <-in.dead:
			return
		}
	}
}

var errLongLine = errors.New("a message from the interpreter is too long")

func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > maxMessage {
			return nil, errLongLine
		}
		line = append(line, part...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}

func (in *interpreter) send(m message) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_ = in.conn.SetWriteDeadline(time.Now().Add(startTimeout))
	_, err = in.conn.Write(append(b, '\n'))
	return err
}

// crash says how the interpreter ended. It waits a moment for its status: the socket
// may have ended first.
func (in *interpreter) crash(op string) error {
	wait := time.NewTimer(settle)
	defer wait.Stop()
	select {
	case <-in.dead:
	case <-wait.C:
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if sandbox.CodeOf(in.err) == sandbox.CodeConnectionLost {
		return in.err
	}
	if in.ended == nil || in.ended.Exit == nil {
		return sandbox.Errf(sandbox.CodeConnectionLost, op, "the connection to the interpreter was closed there: another client has attached, or the code has closed it", "attach again; what is running goes on")
	}
	e := sandbox.Errf(sandbox.CodeInterpreterCrashed, op, "", "its state is lost; the next run begins with a new one")
	exit := in.ended.Exit
	switch {
	case exit.OutOfMemory:
		e.Message = "the interpreter was killed because the sandbox's memory was used up"
	case exit.Signal != "":
		e.Message = "the interpreter was ended by " + exit.Signal
	default:
		e.Message = fmt.Sprintf("the interpreter ended with status %d", exit.Code)
	}
	if said := strings.TrimSpace(strings.ToValidUTF8(string(in.stderr), "\ufffd")); said != "" && exit.Code != 0 {
		e.Message += ": " + said
	}
	return e
}

// alive says whether there is any use in asking it.
func (in *interpreter) alive() bool {
	select {
	case <-in.dead:
		return false
	default:
		return true
	}
}

// kill ends the process and the connections to it.
func (in *interpreter) kill(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
	defer cancel()
	_ = in.box.Signal(ctx, in.process.ID, "SIGKILL") // it may have ended
	_ = in.box.Remove(ctx, in.process.ID)
	in.close()
}

// close ends the connections and leaves the process alone. It does not wait: it may be
// called by a function that is told of what is printed.
func (in *interpreter) close() {
	in.stop()
	if in.conn != nil {
		_ = in.conn.Close()
	}
}

// scanner finds one mark in a stream and takes it out. What may be the beginning of
// the mark is held back until more has come.
type scanner struct {
	mark []byte
	held []byte
	done bool
}

func (s *scanner) feed(data []byte) (rest []byte, found bool) {
	if s.done {
		return data, false
	}
	if len(s.held) > 0 {
		data = append(s.held, data...)
		s.held = nil
	}
	if i := bytes.Index(data, s.mark); i >= 0 {
		s.done = true
		return append(append([]byte(nil), data[:i]...), data[i+len(s.mark):]...), true
	}
	for n := min(len(s.mark)-1, len(data)); n > 0; n-- {
		if bytes.HasSuffix(data, s.mark[:n]) {
			s.held = append([]byte(nil), data[len(data)-n:]...)
			return data[:len(data)-n], false
		}
	}
	return data, false
}
