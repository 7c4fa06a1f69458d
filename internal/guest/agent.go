package guest

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
)

// rpcAgent is the restricted object that is relayed to OpenCode's plugin: tools,
// and the three methods of the description this project began with, in its
// shapes.
type rpcAgent struct{ s *server }

var agentClass = capnweb.NewClass[*rpcAgent](capnweb.Methods{
	"tool":      (*rpcAgent).tool,
	"cancel":    (*rpcAgent).cancel,
	"exec":      (*rpcAgent).exec,
	"readFile":  (*rpcAgent).readFile,
	"writeFile": (*rpcAgent).writeFile,
}, capnweb.Concurrent())

func (a *rpcAgent) tool(ctx context.Context, req sandbox.ToolRequest) (*sandbox.ToolResult, error) {
	return a.s.runTool(ctx, req)
}

func (a *rpcAgent) cancel(callID string) bool { return a.s.runs.abort(callID) }

// runTool begins a run of a tool, or attaches to it, and waits for its end. When
// the session breaks the run goes on.
func (s *server) runTool(ctx context.Context, req sandbox.ToolRequest) (*sandbox.ToolResult, error) {
	if req.Name == "" {
		return nil, sandbox.Errf(sandbox.CodeInvalidArgument, "tool", "the call names no tool", "set name")
	}
	if req.Args == nil {
		req.Args = map[string]any{}
	}
	args, err := json.Marshal(req.Args)
	if err != nil {
		return nil, sandbox.Errf(sandbox.CodeInvalidArgument, "tool", "the arguments are not plain JSON: "+err.Error(), "")
	}
	x, err := s.runs.attach(req.Name, args, runKey{req.SessionID, req.MessageID, req.CallID}, req.Again)
	if err != nil {
		return nil, err
	}
	detach := x.hooks.attach(&caller{ask: req.Ask, progress: req.Progress, ctx: ctx})
	defer detach()
	select {
	case <-x.done:
		return x.result, x.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

const (
	maxExecOutput = 8 << 20  // of each stream, in exec's answer
	maxReadFile   = 32 << 20 // in readFile's answer
)

type execOptions struct {
	Timeout  float64           `json:"timeout"` // milliseconds
	Cwd      string            `json:"cwd"`
	Env      map[string]string `json:"env"`
	Encoding string            `json:"encoding"`
}

type execResult struct {
	Success   bool    `json:"success"`
	ExitCode  int     `json:"exitCode"`
	Stdout    string  `json:"stdout"`
	Stderr    string  `json:"stderr"`
	Command   string  `json:"command"`
	Duration  float64 `json:"duration"` // milliseconds
	Timestamp string  `json:"timestamp"`
	TimedOut  bool    `json:"timedOut,omitempty"`
	Truncated bool    `json:"truncated,omitempty"`
}

// exec runs a shell command to its end. A command that was killed after its
// timeout gives what it printed, success false, and the status of the signal.
func (a *rpcAgent) exec(ctx context.Context, command string, opts *execOptions) (*execResult, error) {
	if opts == nil {
		opts = &execOptions{}
	}
	if !(opts.Timeout >= 0 && opts.Timeout < 1<<40) {
		return nil, sandbox.Errf(sandbox.CodeInvalidArgument, "exec", "timeout must be milliseconds, 0 or more", "")
	}
	sh := a.s.cfg.User.Shell
	if _, err := os.Stat(sh); err != nil {
		sh = "/bin/sh"
	}
	p, err := a.s.engine.start(sandbox.ProcessSpec{Argv: []string{sh, "-c", command}, Dir: opts.Cwd, Env: opts.Env, LogBytes: 256 << 10},
		startOptions{timeout: time.Duration(opts.Timeout * float64(time.Millisecond)), mode: sandbox.Lossless})
	if err != nil {
		return nil, err
	}
	p.log.attach()
	defer p.log.detach()
	var out, errOut bytes.Buffer
	truncated := false
	for off := int64(0); ; {
		v := p.log.read(off)
		b := &out
		if v.stream == sandbox.Stderr {
			b = &errOut
		}
		if room := maxExecOutput - b.Len(); len(v.data) > room {
			b.Write(v.data[:room])
			truncated = true
		} else {
			b.Write(v.data)
		}
		off += v.dropped + int64(len(v.data))
		p.log.release(v)
		p.log.confirm(off)
		if v.ended {
			break
		}
		if len(v.data) > 0 {
			continue
		}
		select {
		case <-p.log.waitChange(off):
		case <-ctx.Done():
			// Nobody will read it, but it is not for that reason to end.
			p.log.follow()
			return nil, ctx.Err()
		}
	}
	in := p.info()
	a.s.engine.remove(p)
	return &execResult{
		Success: in.Exit.Success(), ExitCode: in.Exit.ShellCode(), Stdout: valid(out.Bytes()), Stderr: valid(errOut.Bytes()),
		Command: command, Duration: float64(in.Ended.Sub(in.Started).Microseconds()) / 1000, Timestamp: timestamp(in.Started),
		TimedOut: in.Exit.TimedOut, Truncated: truncated,
	}, nil
}

func valid(b []byte) string { return strings.ToValidUTF8(string(b), "\uFFFD") }

func timestamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

type encodingOption struct {
	Encoding string `json:"encoding"`
}

func (o *encodingOption) name(op string) (string, error) {
	if o == nil || o.Encoding == "" {
		return "", nil
	}
	switch e := strings.ToLower(o.Encoding); e {
	case "utf-8", "utf8":
		return "utf-8", nil
	case "base64":
		return e, nil
	}
	return "", sandbox.Errf(sandbox.CodeInvalidArgument, op, fmt.Sprintf("the encoding %.40q is neither utf-8 nor base64", o.Encoding), "")
}

type readFileResult struct {
	Success   bool   `json:"success"`
	Path      string `json:"path"`
	Content   string `json:"content"`
	Encoding  string `json:"encoding"`
	IsBinary  bool   `json:"isBinary"`
	MimeType  string `json:"mimeType"`
	Size      int64  `json:"size"`
	Timestamp string `json:"timestamp"`
}

// readFile gives a whole file: as text, or in base64 when it is binary or when
// that is asked for.
func (a *rpcAgent) readFile(path string, opts *encodingOption) (*readFileResult, error) {
	const op = "read file"
	enc, err := opts.name(op)
	if err != nil {
		return nil, err
	}
	f, _, err := a.s.engine.openRead(path, sandbox.ReadOptions{})
	if err != nil {
		return nil, err
	}
	defer f.Close()
	tooLarge := sandbox.Errf(sandbox.CodeFileTooLarge, op, fmt.Sprintf("%s has more than the %d MiB that fit in one answer", path, maxReadFile>>20), "read a part of it with a command")
	if f.st.Size > maxReadFile {
		return nil, tooLarge
	}
	data, more, err := readUpTo(f, maxReadFile, f.st.Size)
	if err != nil {
		return nil, err
	}
	if more {
		return nil, tooLarge
	}
	r := &readFileResult{
		Success: true, Path: path, IsBinary: isBinary(data), MimeType: mimeType(path, data), Size: int64(len(data)),
		Timestamp: timestamp(time.Now()), Encoding: enc,
	}
	if enc == "" {
		if r.Encoding = "utf-8"; r.IsBinary {
			r.Encoding = "base64"
		}
	}
	if r.Encoding == "base64" {
		r.Content = base64.StdEncoding.EncodeToString(data)
	} else {
		r.Content = valid(data)
	}
	return r, nil
}

// isBinary: a NUL byte or invalid UTF-8 is no text.
func isBinary(data []byte) bool { return bytes.IndexByte(data, 0) >= 0 || !utf8.Valid(data) }

type writeFileResult struct {
	Success   bool   `json:"success"`
	Path      string `json:"path"`
	Timestamp string `json:"timestamp"`
}

// writeFile writes a whole file; its directory must exist.
func (a *rpcAgent) writeFile(path, content string, opts *encodingOption) (*writeFileResult, error) {
	const op = "write file"
	enc, err := opts.name(op)
	if err != nil {
		return nil, err
	}
	data := []byte(content)
	if enc == "base64" {
		if data, err = base64.StdEncoding.DecodeString(content); err != nil {
			return nil, sandbox.Errf(sandbox.CodeInvalidArgument, op, "the content is not base64: "+err.Error(), "leave out the encoding to write text")
		}
	}
	m := rpcMain{a.s}
	if _, err := m.writeFile(path, data, sandbox.WriteOptions{}); err != nil {
		return nil, err
	}
	return &writeFileResult{Success: true, Path: path, Timestamp: timestamp(time.Now())}, nil
}

// mimeType goes by the content where that is plain, else by the name.
func mimeType(path string, data []byte) string {
	for _, m := range []struct{ magic, mime string }{
		{"\x89PNG\r\n\x1a\n", "image/png"}, {"\xff\xd8\xff", "image/jpeg"}, {"GIF8", "image/gif"}, {"%PDF-", "application/pdf"},
		{"PK\x03\x04", "application/zip"}, {"\x1f\x8b", "application/gzip"}, {"\x7fELF", "application/x-executable"},
	} {
		if bytes.HasPrefix(data, []byte(m.magic)) {
			return m.mime
		}
	}
	if len(data) >= 12 && string(data[:4]) == "RIFF" && string(data[8:12]) == "WEBP" {
		return "image/webp"
	}
	if isBinary(data) {
		return "application/octet-stream"
	}
	if mime, ok := textTypes[strings.ToLower(filepath.Ext(path))]; ok {
		return mime
	}
	return "text/plain"
}

var textTypes = map[string]string{
	".html": "text/html", ".htm": "text/html", ".css": "text/css", ".js": "text/javascript", ".mjs": "text/javascript",
	".json": "application/json", ".xml": "text/xml", ".svg": "image/svg+xml", ".md": "text/markdown", ".csv": "text/csv",
	".py": "text/x-python", ".sh": "text/x-shellscript", ".c": "text/x-c", ".h": "text/x-c",
}
