package opencode_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/internal/opencode"
	"github.com/tongs-dev/tongs/sandbox"
)

// localMachine is a Machine without isolation: processes of this machine, its
// files and its loopback. Its processes outlive the Host, as those of an agent
// host do; they end with the test.
type localMachine struct {
	mu        sync.Mutex
	processes map[string]*localProcess
	starts    []sandbox.ProcessSpec
	// broken, if set, is the error of every call.
	broken error
	breaks chan struct{} // closed when broken is set
}

type localProcess struct {
	info sandbox.ProcessInfo
	cmd  *exec.Cmd
	done chan struct{}

	mu    sync.Mutex
	log   []chunk
	size  int64
	grown chan struct{}
}

type chunk struct {
	stream sandbox.Stream
	at     int64
	data   []byte
}

func newLocalMachine(t *testing.T) *localMachine {
	m := &localMachine{processes: map[string]*localProcess{}, breaks: make(chan struct{})}
	t.Cleanup(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, p := range m.processes {
			_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
			<-p.done
		}
	})
	return m
}

// connect is a HostConfig's Machine.
func (m *localMachine) connect(context.Context) (opencode.Machine, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken != nil {
		return nil, m.broken
	}
	return &localConn{m, m.breaks}, nil
}

// cut breaks every call under way, and those that follow until heal.
func (m *localMachine) cut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.broken = lost()
	close(m.breaks)
}

func (m *localMachine) heal() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.broken = nil
	m.breaks = make(chan struct{})
}

// replace gives the machine a new life: no process of the old one is known.
func (m *localMachine) replace() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, p := range m.processes {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.done
		delete(m.processes, id)
	}
	close(m.breaks)
	m.breaks = make(chan struct{})
}

func lost() error {
	return sandbox.Errf(sandbox.CodeConnectionLost, "test", "the connection was cut", "")
}

func (m *localMachine) started() []sandbox.ProcessSpec {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.starts)
}

// pid of the newest OpenCode.
func (m *localMachine) pid() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.processes["opencode"].info.PID
}

func (p *localProcess) Write(stream sandbox.Stream, data []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = append(p.log, chunk{stream, p.size, slices.Clone(data)})
	p.size += int64(len(data))
	close(p.grown)
	p.grown = make(chan struct{})
}

type streamWriter struct {
	p      *localProcess
	stream sandbox.Stream
}

func (w streamWriter) Write(data []byte) (int, error) {
	w.p.Write(w.stream, data)
	return len(data), nil
}

// localConn is one connection to the machine.
type localConn struct {
	*localMachine
	broke chan struct{}
}

func (c *localConn) alive() error {
	select {
	case <-c.broke:
		return lost()
	default:
		return nil
	}
}

func (c *localConn) find(id string) (*localProcess, error) {
	if err := c.alive(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.processes[id]
	if p == nil {
		return nil, sandbox.Errf(sandbox.CodeProcessNotFound, "test", "no process "+id, "")
	}
	return p, nil
}

func (c *localConn) Start(_ context.Context, spec sandbox.ProcessSpec) (*sandbox.ProcessInfo, error) {
	if err := c.alive(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.processes[spec.ID] != nil {
		return nil, sandbox.Errf(sandbox.CodeProcessExists, "test", "there is one", "")
	}
	p := &localProcess{done: make(chan struct{}), grown: make(chan struct{})}
	p.cmd = exec.Command(spec.Argv[0], spec.Argv[1:]...)
	p.cmd.Dir = spec.Dir
	p.cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	for _, key := range slices.Sorted(maps.Keys(spec.Env)) {
		p.cmd.Env = append(p.cmd.Env, key+"="+spec.Env[key])
	}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p.cmd.Stdout, p.cmd.Stderr = streamWriter{p, sandbox.Stdout}, streamWriter{p, sandbox.Stderr}
	p.cmd.WaitDelay = time.Second
	started := make(chan error)
	go func() {
		// Pdeathsig is about the thread that started the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		_ = p.cmd.Wait()
		exit := sandbox.Exit{Code: p.cmd.ProcessState.ExitCode()}
		if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			exit.Signal = status.Signal().String()
		}
		p.mu.Lock()
		p.info.Running, p.info.Exit = false, &exit
		p.mu.Unlock()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, &sandbox.Error{Code: sandbox.CodeCommandNotFound, Op: "test", Message: err.Error(), Err: err}
	}
	c.starts = append(c.starts, spec)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.info.ID, p.info.PID, p.info.Argv, p.info.Labels = spec.ID, p.cmd.Process.Pid, spec.Argv, spec.Labels
	p.info.Started, p.info.Running = time.Now(), p.info.Exit == nil
	c.processes[spec.ID] = p
	info := p.info
	return &info, nil
}

func (p *localProcess) snapshot() *sandbox.ProcessInfo {
	p.mu.Lock()
	defer p.mu.Unlock()
	info := p.info
	return &info
}

func (c *localConn) Get(_ context.Context, id string) (*sandbox.ProcessInfo, error) {
	p, err := c.find(id)
	if err != nil {
		return nil, err
	}
	return p.snapshot(), nil
}

func (c *localConn) Wait(ctx context.Context, id string) (*sandbox.ProcessInfo, error) {
	p, err := c.find(id)
	if err != nil {
		return nil, err
	}
	select {
	case <-p.done:
		return p.snapshot(), nil
	case <-c.broke:
		return nil, lost()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (c *localConn) Signal(_ context.Context, id, signal string) error {
	p, err := c.find(id)
	if err != nil {
		return err
	}
	number, ok := map[string]syscall.Signal{"SIGTERM": syscall.SIGTERM, "SIGKILL": syscall.SIGKILL}[signal]
	if !ok {
		return errors.New("signal " + signal)
	}
	return syscall.Kill(-p.info.PID, number)
}

func (c *localConn) Remove(_ context.Context, id string) error {
	if _, err := c.find(id); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.processes, id)
	return nil
}

func (c *localConn) WriteFile(_ context.Context, path string, data []byte, opts sandbox.WriteOptions) (*sandbox.FileInfo, error) {
	if err := c.alive(); err != nil {
		return nil, err
	}
	return &sandbox.FileInfo{}, sandbox.FileError("write file", os.WriteFile(path, data, fs.FileMode(opts.Mode)))
}

func (c *localConn) Mkdir(_ context.Context, path string, parents bool) error {
	if err := c.alive(); err != nil {
		return err
	}
	return sandbox.FileError("mkdir", os.MkdirAll(path, 0o777))
}

func (c *localConn) Stat(_ context.Context, path string) (*sandbox.FileInfo, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, sandbox.FileError("stat", err)
	}
	return &sandbox.FileInfo{Type: sandbox.TypeFile, Mode: uint32(st.Mode().Perm())}, nil
}

func (c *localConn) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if err := c.alive(); err != nil {
		return nil, err
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, &sandbox.Error{Code: sandbox.CodeServiceNotResponding, Op: "dial", Message: err.Error(), Err: err}
	}
	return conn, nil
}

func (c *localConn) Output(_ context.Context, id string, opts sandbox.OutputOptions) (sandbox.Output, error) {
	p, err := c.find(id)
	if err != nil {
		return nil, err
	}
	return &localOutput{p: p, c: c, offset: opts.Offset}, nil
}

type localOutput struct {
	p      *localProcess
	c      *localConn
	offset int64
}

func (o *localOutput) Next(ctx context.Context) (sandbox.Stream, []byte, int64, error) {
	for {
		o.p.mu.Lock()
		grown := o.p.grown
		for _, c := range o.p.log {
			if c.at >= o.offset {
				o.p.mu.Unlock()
				o.offset = c.at + int64(len(c.data))
				return c.stream, c.data, 0, nil
			}
		}
		ended := o.p.info.Exit != nil
		o.p.mu.Unlock()
		if ended {
			return 0, nil, 0, io.EOF
		}
		select {
		case <-grown:
		case <-o.p.done:
		case <-o.c.broke:
			return 0, nil, 0, lost()
		case <-ctx.Done():
			return 0, nil, 0, ctx.Err()
		}
	}
}

func (o *localOutput) Offset() int64              { return o.offset }
func (o *localOutput) Info() *sandbox.ProcessInfo { return o.p.snapshot() }
func (o *localOutput) Close() error               { return nil }

// freePorts are loopback ports that nobody listened on a moment ago.
func freePorts(t *testing.T, n int) []int {
	t.Helper()
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

// places makes the directories of an agent host.
func places(t *testing.T) (home, project string) {
	t.Helper()
	home = t.TempDir()
	project = filepath.Join(home, "project")
	if err := os.Mkdir(project, 0o755); err != nil {
		t.Fatal(err)
	}
	return home, project
}
