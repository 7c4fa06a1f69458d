package guest

import (
	"cmp"
	"context"
	"net"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
)

// rpcMain is the main object of one session: what the host may ask for.
type rpcMain struct{ s *server }

var mainClass = capnweb.NewClass[*rpcMain](with(fileMethods, capnweb.Methods{
	"info":     (*rpcMain).info,
	"shutdown": (*rpcMain).shutdown,
	"suspend":  (*rpcMain).suspend,
	"agent":    capnweb.Getter((*rpcMain).agent),

	"exec":      (*rpcMain).exec,
	"start":     (*rpcMain).start,
	"processes": (*rpcMain).processes,
	"process":   (*rpcMain).process,
	"wait":      (*rpcMain).wait,
	"signal":    (*rpcMain).signal,
	"kill":      (*rpcMain).kill,
	"remove":    (*rpcMain).remove,
	"resize":    (*rpcMain).resize,
	"output":    (*rpcMain).output,
	"waitLog":   (*rpcMain).waitLog,
	"waitPort":  (*rpcMain).waitPort,
	"stdin":     (*rpcMain).stdin,

	"readFile":   (*rpcMain).readFile,
	"writeFile":  (*rpcMain).writeFile,
	"openWrite":  (*rpcMain).openWrite,
	"stat":       (*rpcMain).stat,
	"lstat":      (*rpcMain).lstat,
	"list":       (*rpcMain).list,
	"mkdir":      (*rpcMain).mkdir,
	"removeFile": (*rpcMain).removeFile,
	"rename":     (*rpcMain).rename,
	"chmod":      (*rpcMain).chmod,
	"symlink":    (*rpcMain).symlink,

	"dial":     (*rpcMain).dial,
	"listen":   (*rpcMain).listen,
	"unlisten": (*rpcMain).unlisten,

	"ports":      (*rpcMain).ports,
	"watchPorts": (*rpcMain).watchPorts,

	"tool":   (*rpcMain).tool,
	"cancel": (*rpcMain).cancel,
}), capnweb.Concurrent())

func (m *rpcMain) info() sandbox.GuestInfo {
	s := m.s
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	host, _ := os.Hostname()
	return sandbox.GuestInfo{
		Protocol: sandbox.Protocol, Incarnation: s.cfg.Incarnation, Version: s.cfg.Version, PID: os.Getpid(), Hostname: host,
		User: s.cfg.User.Name, Home: s.cfg.User.Home, Project: s.cfg.Project, UptimeMS: time.Since(s.began).Milliseconds(),
		Processes: s.engine.count(), MemoryBytes: int64(mem.Sys - mem.HeapReleased),
	}
}

// shutdown begins the end. Sessions are the last to be closed, so that the answer
// goes out.
func (m *rpcMain) shutdown() { m.s.stop("asked to") }

func (m *rpcMain) agent() *capnweb.Target { return agentClass.New(&rpcAgent{s: m.s}) }

func (m *rpcMain) exec(ctx context.Context, req sandbox.StartRequest) (*sandbox.ExecReply, error) {
	p, out, err := m.s.engine.exec(ctx, req)
	if err != nil {
		return nil, err
	}
	if out != nil {
		if req.Forget {
			m.s.engine.remove(p)
		}
		return &sandbox.ExecReply{Info: p.info(), Stdout: out.stdout, Stderr: out.stderr}, nil
	}
	t, err := m.s.outputToken(p, sandbox.OutputOptions{Follow: true})
	if err != nil {
		return nil, err
	}
	return &sandbox.ExecReply{Info: p.info(), Token: t.Token}, nil
}

func (m *rpcMain) start(req sandbox.StartRequest) (*sandbox.ProcessInfo, error) {
	p, err := m.s.engine.start(req.Spec, startOptions{timeout: time.Duration(req.TimeoutMS) * time.Millisecond, mode: sandbox.Follow})
	if err != nil {
		return nil, err
	}
	in := p.info()
	return &in, nil
}

func (m *rpcMain) processes() []sandbox.ProcessInfo { return m.s.engine.list() }

func (m *rpcMain) process(id string) (*sandbox.ProcessInfo, error) {
	p, err := m.s.engine.get("get process", id)
	if err != nil {
		return nil, err
	}
	in := p.info()
	return &in, nil
}

func (m *rpcMain) wait(ctx context.Context, id string) (*sandbox.ProcessInfo, error) {
	p, err := m.s.engine.get("wait", id)
	if err != nil {
		return nil, err
	}
	select {
	case <-p.exited:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	in := p.info()
	return &in, nil
}

func (m *rpcMain) signal(id, name string) error {
	sig, err := sandbox.ParseSignal(name)
	if err != nil {
		return err
	}
	p, err := m.s.engine.get("signal", id)
	if err != nil {
		return err
	}
	return p.signal(sig)
}

func (m *rpcMain) kill(id string) error {
	p, err := m.s.engine.get("kill", id)
	if err == nil {
		p.kill(false)
	}
	return err
}

func (m *rpcMain) remove(id string) error {
	p, err := m.s.engine.get("remove", id)
	if err == nil {
		m.s.engine.remove(p)
	}
	return err
}

func (m *rpcMain) resize(id string, size sandbox.TerminalSize) error {
	p, err := m.s.engine.get("resize", id)
	if err != nil {
		return err
	}
	return p.resize(size)
}

func (s *server) outputToken(p *process, opts sandbox.OutputOptions) (sandbox.TokenReply, error) {
	if opts.Offset < 0 {
		return sandbox.TokenReply{}, sandbox.Errf(sandbox.CodeInvalidArgument, "output", "the offset is negative", "")
	}
	return s.tokens.issue(func(c *net.UnixConn) { s.serveLog(c, p, opts) }, nil)
}

func (m *rpcMain) output(id string, req sandbox.OutputRequest) (*sandbox.OutputReply, error) {
	p, err := m.s.engine.get("output", id)
	if err != nil {
		return nil, err
	}
	t, err := m.s.outputToken(p, sandbox.OutputOptions(req))
	if err != nil {
		return nil, err
	}
	return &sandbox.OutputReply{Token: t.Token, LogBytes: p.log.limit}, nil
}

func (m *rpcMain) stdin(id string) (*sandbox.TokenReply, error) {
	p, err := m.s.engine.get("stdin", id)
	if err != nil {
		return nil, err
	}
	if p.stdin == nil || p.stdin.isClosed() {
		return nil, stdinClosed(p)
	}
	w := p.stdin.ask()
	return m.token(func(c *net.UnixConn) { m.s.serveStdin(c, p, w) }, nil)
}

func (m *rpcMain) token(serve func(*net.UnixConn), drop func()) (*sandbox.TokenReply, error) {
	t, err := m.s.tokens.issue(serve, drop)
	if err != nil {
		return nil, err
	}
	return &t, nil
}

func (m *rpcMain) readFile(path string, opts sandbox.ReadOptions) (*sandbox.ReadReply, error) {
	f, length, err := m.s.engine.openRead(path, opts)
	if err != nil {
		return nil, err
	}
	fi := info(f.path, &f.st)
	if rest := f.st.Size - opts.Offset; min(rest, length) <= sandbox.InlineBytes {
		data, more, err := readUpTo(f, min(length, sandbox.InlineBytes), rest)
		if err != nil {
			f.Close()
			return nil, err
		}
		if !more || length <= sandbox.InlineBytes {
			f.Close()
			return &sandbox.ReadReply{Info: fi, Data: data[:min(int64(len(data)), length)]}, nil
		}
		// It has more than its size says: a file of the kernel's, or one
		// that grows. Begin again as a stream.
		f.Close()
		if f, length, err = m.s.engine.openRead(path, opts); err != nil {
			return nil, err
		}
	}
	t, err := m.s.tokens.issue(func(c *net.UnixConn) { m.s.serveRead(c, f, length) }, func() { f.Close() })
	if err != nil {
		return nil, err
	}
	return &sandbox.ReadReply{Info: fi, Token: t.Token}, nil
}

func (m *rpcMain) writeFile(path string, data []byte, opts sandbox.WriteOptions) (*sandbox.FileInfo, error) {
	w, err := m.s.engine.openWrite(path, opts)
	if err != nil {
		return nil, err
	}
	defer w.abort()
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	fi, err := w.commit()
	if err != nil {
		return nil, err
	}
	return &fi, nil
}

func (m *rpcMain) openWrite(path string, opts sandbox.WriteOptions) (*sandbox.TokenReply, error) {
	w, err := m.s.engine.openWrite(path, opts)
	if err != nil {
		return nil, err
	}
	return m.token(func(c *net.UnixConn) { m.s.serveWrite(c, w) }, w.abort)
}

func (m *rpcMain) describe(op, path string, follow bool) (*sandbox.FileInfo, error) {
	path, err := m.s.engine.path(op, path)
	if err != nil {
		return nil, err
	}
	fi, err := lstat(op, path, follow)
	if err != nil {
		return nil, err
	}
	return &fi, nil
}

func (m *rpcMain) stat(path string) (*sandbox.FileInfo, error) { return m.describe("stat", path, true) }
func (m *rpcMain) lstat(path string) (*sandbox.FileInfo, error) {
	return m.describe("lstat", path, false)
}

func (m *rpcMain) list(ctx context.Context, path string, opts sandbox.ListOptions) (*sandbox.ListResult, error) {
	return m.s.engine.listFiles(ctx, path, opts)
}

func (m *rpcMain) mkdir(path string, parents bool) error { return m.s.engine.mkdir(path, parents) }

func (m *rpcMain) removeFile(path string, recursive bool) error {
	return m.s.engine.removeFile(path, recursive)
}

func (m *rpcMain) rename(from, to string) error         { return m.s.engine.rename(from, to) }
func (m *rpcMain) chmod(path string, mode uint32) error { return m.s.engine.chmod(path, mode) }
func (m *rpcMain) symlink(target, path string) error    { return m.s.engine.symlink(target, path) }
func (m *rpcMain) unlisten(name string) error           { return m.s.listeners.drop(name) }
func (m *rpcMain) cancel(callID string) bool            { return m.s.runs.abort(callID) }

func (m *rpcMain) dial(ctx context.Context, network, address string) (*sandbox.TokenReply, error) {
	c, err := m.s.engine.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return m.token(func(u *net.UnixConn) { m.s.relay(u, c) }, func() { c.Close() })
}

func (m *rpcMain) listen(name, address, network string) (*sandbox.TokenReply, error) {
	// The descriptor is made when it is fetched, so that a token nobody
	// redeems costs nothing; errors belong to this call.
	fd, err := m.s.listeners.get(cmp.Or(network, "tcp"), name, address)
	if err != nil {
		return nil, err
	}
	return m.token(func(u *net.UnixConn) { handOver(u, fd) }, func() { _ = unix.Close(fd) })
}

func (m *rpcMain) ports() ([]sandbox.PortInfo, error) { return m.s.ports() }

func (m *rpcMain) watchPorts() (*sandbox.TokenReply, error) { return m.token(m.s.serveWatch, nil) }

func (m *rpcMain) tool(ctx context.Context, req sandbox.ToolRequest) (*sandbox.ToolResult, error) {
	return m.s.runTool(ctx, req)
}
