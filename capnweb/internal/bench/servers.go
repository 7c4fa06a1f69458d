package bench

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/capnweb/internal/interop"
)

// server is one of the two that are compared, in a process of its own.
type server struct {
	name string
	addr string // host:port
	pid  int
}

// startGo builds and runs conformancepeer -bench until the benchmark ends.
func startGo(b *testing.B) server {
	b.Helper()
	binary := filepath.Join(b.TempDir(), "conformancepeer")
	build := exec.CommandContext(b.Context(), "go", "build", "-trimpath", "-o", binary,
		"github.com/tongs-dev/tongs/capnweb/internal/conformancepeer")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("building the server: %v\n%s", err, out)
	}
	cmd := exec.CommandContext(context.WithoutCancel(b.Context()), binary, "-bench")
	cmd.Stderr = os.Stderr
	cmd.WaitDelay = 5 * time.Second
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	addr, ok := strings.CutPrefix(strings.TrimSpace(line), "LISTEN ")
	if err != nil || !ok {
		b.Fatalf("the server said %q, %v", line, err)
	}
	return server{"go", addr, cmd.Process.Pid}
}

// startNode runs the reference's server until the benchmark ends.
func startNode(b *testing.B) server {
	b.Helper()
	port, pid := interop.StartServer(b, "bench.mjs")
	return server{"node", fmt.Sprintf("127.0.0.1:%d", port), pid}
}

// cpu is the processor time that the server has used.
func (s server) cpu(b *testing.B) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.pid))
	if err != nil {
		b.Fatal(err)
	}
	// The second field, the program's name in parentheses, may contain spaces.
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		b.Fatalf("/proc/%d/stat: unexpected %q", s.pid, stat)
	}
	var ticks int64
	for _, f := range fields[11:13] { // utime, stime
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	const tick = time.Second / 100 // USER_HZ, which is 100 on all of Linux
	return time.Duration(ticks) * tick
}

// peak is the most memory that the server has had in RAM since forget, in MB.
func (s server) peak(b *testing.B) float64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			return float64(kib) * 1024 / 1e6
		}
	}
	b.Fatalf("no VmHWM for process %d", s.pid)
	return 0
}

// forget makes peak begin anew at what the server has now.
func (s server) forget(b *testing.B) {
	b.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", s.pid), []byte("5"), 0); err != nil {
		b.Logf("%s: the peak memory counts from the server's start: %v", s.name, err)
	}
}
