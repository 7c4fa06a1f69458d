package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1" //nolint:gosec // RFC 6455 says so
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// floorVariable makes this test program a server that does next to nothing, to
// show what the machine leaves to the others: "echo" sends back what it reads over TCP,
// "websocket" answers each pull without looking at the call, and each long message.
const floorVariable = "TONGS_BENCH_FLOOR"

func TestMain(m *testing.M) {
	if kind := os.Getenv(floorVariable); kind != "" {
		if err := serveFloor(kind); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func serveFloor(kind string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Printf("LISTEN %s\n", listener.Addr())
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			if kind == "echo" {
				serveEcho(conn)
			} else {
				serveFrames(conn)
			}
		}()
	}
}

func serveEcho(conn net.Conn) {
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		if _, err := conn.Write(buf[:n]); err != nil {
			return
		}
	}
}

// longFrame is the size from which a frame is acknowledged by serveFrames.
const longFrame = 1 << 10

// serveFrames speaks as much WebSocket as the load generator does: masked frames,
// not fragmented, the masks all zero.
func serveFrames(conn net.Conn) {
	r := bufio.NewReaderSize(conn, 256<<10)
	request, err := http.ReadRequest(r)
	if err != nil {
		return
	}
	sum := sha1.Sum([]byte(request.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // as above
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	var out []byte
	for {
		if r.Buffered() == 0 && len(out) > 0 {
			if _, err := conn.Write(out); err != nil {
				return
			}
			out = out[:0]
		}
		msg, err := readMasked(r)
		if err != nil {
			return
		}
		if id, ok := bytes.CutPrefix(msg, []byte(`["pull",`)); ok {
			at := len(out)
			out = append(append(out, 0x81, 0), `["resolve",`...)
			out = append(append(out, bytes.TrimSuffix(id, []byte("]"))...), ",144]"...)
			out[at+1] = byte(len(out) - at - 2)
		}
		if len(msg) >= longFrame {
			out = append(out, 0x81, 2, '4', '2')
		}
		if _, err := r.Discard(len(msg)); err != nil {
			return
		}
	}
}

// readMasked returns the next message, which is still in r.
func readMasked(r *bufio.Reader) ([]byte, error) {
	b, err := r.Peek(2)
	if err != nil {
		return nil, err
	}
	n, head := int(b[1]&127), 6
	switch n {
	case 126:
		head = 8
	case 127:
		head = 14
	}
	if b, err = r.Peek(head); err != nil {
		return nil, err
	}
	switch n {
	case 126:
		n = int(binary.BigEndian.Uint16(b[2:]))
	case 127:
		n = int(binary.BigEndian.Uint64(b[2:]))
	}
	_, _ = r.Discard(head)
	return r.Peek(n)
}

// startFloor runs such a server until the benchmark ends.
func startFloor(b *testing.B, kind string) server {
	b.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(b.Context()), os.Args[0])
	cmd.Env = append(os.Environ(), floorVariable+"="+kind)
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
		b.Fatalf("the floor's server said %q, %v", line, err)
	}
	return server{"floor", addr, cmd.Process.Pid}
}

// BenchmarkInteropFloor prints what a call could cost at best: a round trip over
// TCP to a process of ours that does nothing but echo, as p50; and how fast the frames of a
// stream of 64 KiB chunks could go at best: only written, read and acknowledged.
func BenchmarkInteropFloor(b *testing.B) {
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(micros(echoTime(b, startFloor(b, "echo").addr)), "tcp_p50-µs")
	b.ReportMetric(frameRate(b, startFloor(b, "websocket").addr), "stream_MB/s")
}

func echoTime(b *testing.B, addr string) time.Duration {
	b.Helper()
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	buf := make([]byte, 64)
	var times []time.Duration
	for end := time.Now().Add(rounds * turn); time.Now().Before(end); {
		t := time.Now()
		if _, err := conn.Write(buf); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(conn, buf); err != nil {
			b.Fatal(err)
		}
		times = append(times, time.Since(t))
	}
	slices.Sort(times)
	return times[len(times)/2]
}

// frameRate is how many megabytes of what would be chunks pass per second.
func frameRate(b *testing.B, addr string) float64 {
	b.Helper()
	c, err := dialRaw(addr)
	if err != nil {
		b.Fatal(err)
	}
	defer c.conn.Close()
	const inFlight = 16
	frame := bytes.Repeat([]byte("A"), base64.RawStdEncoding.EncodedLen(chunkSize))
	sent, acked := 0, 0
	began := time.Now()
	for end := began.Add(rounds * turn); time.Now().Before(end); {
		for ; sent-acked < inFlight; sent++ {
			c.queue(frame)
			if err := c.flush(); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := c.read(); err != nil {
			b.Fatal(err)
		}
		acked++
	}
	return float64(acked) * chunkSize / 1e6 / time.Since(began).Seconds()
}
