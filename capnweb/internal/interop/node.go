package interop

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Node is a running js/peer.mjs.
type Node struct {
	// Port is where it serves: ws://127.0.0.1:Port/<version>?id=<session>.
	Port int

	process *os.Process
	stdin   io.WriteCloser
	stderr  *syncBuffer
	ended   chan struct{}

	mu      sync.Mutex
	last    int
	waiting map[int]chan answer
}

type answer struct {
	ID     int             `json:"id"`
	Result json.RawMessage `json:"result"`
	Error  string          `json:"error"`

	// The first line only.
	Port int `json:"port"`
}

// Start runs js/peer.mjs until the test ends.
func Start(t testing.TB) *Node {
	t.Helper()
	n := &Node{ended: make(chan struct{}), waiting: map[int]chan answer{}}
	out := n.run(t, "peer.mjs")
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 16<<20)
	var first answer
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), &first) != nil || first.Port == 0 {
		t.Fatalf("interop: node did not start: %q %v\n%s", lines.Text(), lines.Err(), n.stderr)
	}
	n.Port = first.Port
	go n.read(lines)
	return n
}

// StartServer runs a script that prints {"port":n} and then serves on it until
// the test ends. It returns the port and the process's id.
func StartServer(t testing.TB, script string, args ...string) (port, pid int) {
	t.Helper()
	n := &Node{ended: make(chan struct{})}
	out := n.run(t, script, args...)
	lines := bufio.NewScanner(out)
	var first struct{ Port, PID int }
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), &first) != nil || first.Port == 0 {
		t.Fatalf("interop: node did not start: %q %v\n%s", lines.Text(), lines.Err(), n.stderr)
	}
	go func() {
		defer close(n.ended)
		_, _ = io.Copy(io.Discard, out)
	}()
	return first.Port, first.PID
}

// run starts node, and has it ended with the test.
func (n *Node) run(t testing.TB, script string, args ...string) io.Reader {
	t.Helper()
	dir := Scripts(t)
	// Not the test's context: that ends before the clean-up, which ends node in order.
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "node", append([]string{filepath.Join(dir, script)}, args...)...)
	cmd.Dir = dir
	n.stderr = &syncBuffer{}
	cmd.Stderr = n.stderr
	cmd.WaitDelay = 5 * time.Second
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	n.process, n.stdin = cmd.Process, stdin
	t.Cleanup(func() {
		_ = n.process.Signal(syscall.SIGCONT)
		_ = stdin.Close() // the script ends when its input does
		timer := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
		<-n.ended
		if err := cmd.Wait(); err != nil {
			t.Errorf("interop: node: %v", err)
		}
		if s := n.stderr.String(); s != "" && t.Failed() {
			t.Logf("interop: node said: %.4000s", s)
		}
	})
	return stdout
}

func (n *Node) read(lines *bufio.Scanner) {
	for lines.Scan() {
		var a answer
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			a.Error = fmt.Sprintf("not an answer: %q", lines.Text())
		}
		n.mu.Lock()
		c := n.waiting[a.ID]
		delete(n.waiting, a.ID)
		n.mu.Unlock()
		if c != nil {
			c <- a
		}
	}
	close(n.ended)
}

// Do has node carry out a command (see js/peer.mjs) and stores its result in
// out, unless that is nil.
func (n *Node) Do(ctx context.Context, command string, args map[string]any, out any) error {
	n.mu.Lock()
	n.last++
	id := n.last
	c := make(chan answer, 1)
	n.waiting[id] = c
	line := map[string]any{}
	maps.Copy(line, args)
	line["id"], line["do"] = id, command
	b, err := json.Marshal(line)
	if err == nil {
		_, err = n.stdin.Write(append(b, '\n'))
	}
	n.mu.Unlock()
	if err != nil {
		return fmt.Errorf("telling node to %s: %w", command, err)
	}
	select {
	case a := <-c:
		if a.Error != "" {
			return errors.New(a.Error)
		}
		if out == nil || len(a.Result) == 0 {
			return nil
		}
		return json.Unmarshal(a.Result, out)
	case <-n.ended:
		return fmt.Errorf("node ended during %s: %s", command, n.stderr)
	case <-ctx.Done():
		return fmt.Errorf("node did not answer %s %v: %w\n%s", command, args, ctx.Err(), n.stderr)
	}
}

// Freeze stops the process where it is: its connections stay open, and nobody
// answers on them. The end of the test thaws it.
func (n *Node) Freeze() error { return n.process.Signal(syscall.SIGSTOP) }

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
