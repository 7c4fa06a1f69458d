package drivertest

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/egress"
	"github.com/tongs-dev/tongs/sandbox"
)

// fetching is a client that asks a web server for a path some times, each over a connection of its own, and
// prints the median of the seconds from before it connects until it has all of the answer.
const fetching = `
import socket, sys, time
host, port, path, times = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
took, buf = [], bytearray(1 << 18)
for i in range(times):
    began = time.perf_counter()
    s = socket.create_connection((host, port))
    s.sendall(("GET %s HTTP/1.0\r\nHost: %s\r\n\r\n" % (path, host)).encode())
    while s.recv_into(buf) > 0: pass
    took.append(time.perf_counter() - began)
    s.close()
took.sort()
print(took[len(took) // 2])
`

// bigAnswer is the size of the long answer.
const bigAnswer = 512 << 20

// benchEgress fetches from a web server of the machine's, from a sandbox by way of the policy and from the
// machine itself, in turn, with the same program.
func benchEgress(b *testing.B, s Suite) {
	if _, err := exec.LookPath("python3"); err != nil {
		b.Skip("there is no python3 to fetch with")
	}
	chunk := make([]byte, 1<<18)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/big" {
			_, _ = io.WriteString(w, "x")
			return
		}
		for range bigAnswer / len(chunk) {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}))
	b.Cleanup(web.Close)
	bed := newBed(b, s)
	spec := bed.spec("out")
	spec.Network = driver.NetworkEgress
	bed.create(b, spec)
	c := bed.connect(b, "out")
	policy, err := egress.ParsePolicy([]string{"example.com"}, nil)
	must(b, err)
	world := outside{web.Listener.Addr().String()}
	k := egress.NewKeeper(egress.KeeperConfig{Default: policy, Dir: b.TempDir(), Logger: slog.New(slog.DiscardHandler),
		Gate: egress.Config{Resolver: world, Dial: world.dial}})
	b.Cleanup(k.Close)
	must(b, k.Serve(b.Context(), "out", c))
	port := strconv.Itoa(web.Listener.Addr().(*net.TCPAddr).Port)

	seconds := func(out []byte, err error) time.Duration {
		b.Helper()
		x, perr := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
		if err != nil || perr != nil {
			b.Fatalf("%v, %v: %s", err, perr, out)
		}
		return time.Duration(x * 1e9)
	}
	fetch := func(path, n string) (inside, outside time.Duration) {
		inside = seconds(run(b, c, "python3", "-c", fetching, "example.com", "80", path, n))
		outside = seconds(exec.CommandContext(b.Context(), "python3", "-c", fetching, "127.0.0.1", port, path, n).CombinedOutput())
		return inside, outside
	}
	var ours, direct, oursBig, directBig times
	for b.Loop() {
		in, out := fetch("/one", "100")
		ours, direct = append(ours, in), append(direct, out)
		in, out = fetch("/big", "3")
		oursBig, directBig = append(oursBig, in), append(directBig, out)
	}
	b.ReportMetric(0, "ns/op") // of all together; means nothing
	b.ReportMetric(float64(ours.p50())/1e3, "connect-µs")
	b.ReportMetric(float64(direct.p50())/1e3, "connect-direct-µs")
	b.ReportMetric(float64(ours.p50())/float64(direct.p50()), "×connect")
	b.ReportMetric(bigAnswer/oursBig.p50().Seconds()/1e6, "MB/s")
	b.ReportMetric(bigAnswer/directBig.p50().Seconds()/1e6, "MB/s-direct")
	b.ReportMetric(float64(directBig.p50())/float64(oursBig.p50()), "×throughput")
}

// run runs a program that must succeed and gives what it printed.
func run(b *testing.B, c *sandbox.Client, argv ...string) ([]byte, error) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), patience)
	defer cancel()
	res, err := c.Exec(ctx, sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: argv}})
	if err == nil && !res.Exit.Success() {
		err = fmt.Errorf("%s ended with %+v", strings.Join(argv[:1], " "), res.Exit)
	}
	if err != nil {
		if res != nil {
			return res.Stderr, err
		}
		return nil, err
	}
	return res.Stdout, nil
}
