package guest_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

// playClient makes the test binary a host that uses the guest whose socket the
// variable names, until it is killed. What it does is its first argument.
const playClient = "TONGS_TEST_PLAY_CLIENT"

// beClient tells the test what it has done on its standard output.
func beClient() error {
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	c, err := sandbox.Connect(ctx, func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", os.Getenv(playClient))
	})
	if err != nil {
		return err
	}
	switch os.Args[1] {
	case "output": // passes on what it reads
		out, err := c.Output(ctx, "talks", sandbox.OutputOptions{Follow: true})
		if err != nil {
			return err
		}
		for {
			_, data, dropped, err := out.Next(ctx)
			if dropped > 0 {
				return fmt.Errorf("%d bytes dropped", dropped)
			}
			// Before the next Next, which confirms that it has them.
			if _, werr := os.Stdout.Write(data); werr != nil {
				return werr
			}
			if err != nil {
				return err
			}
		}
	case "upload", "append": // of what the test gives it
		_, err := c.WriteFrom(ctx, os.Args[1], os.Stdin, sandbox.WriteOptions{Append: os.Args[1] == "append"})
		return fmt.Errorf("the upload ended: %w", err)
	case "exec":
		_, err := c.Exec(ctx, sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{ID: "long", Argv: os.Args[2:]}})
		return fmt.Errorf("the command ended: %w", err)
	}
	return fmt.Errorf("nothing is known of %q", os.Args[1])
}

// host starts the other host.
func (b *box) host(stdin io.Reader, args ...string) (cmd *exec.Cmd, stdout io.Reader) {
	b.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		b.t.Fatal(err)
	}
	cmd = exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), playClient+"="+b.socket)
	cmd.Stderr = b.stderr
	cmd.Stdin = stdin
	if stdout, err = cmd.StdoutPipe(); err != nil {
		b.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd, stdout
}

// The host is killed while it reads output, several times. Another one goes on at
// the byte after the last that was passed on: none is missing, none comes twice.
func TestHostKilledDuringOutput(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	const n = 400_000
	start(ctx, t, b, sandbox.ProcessSpec{ID: "talks", Mode: sandbox.Lossless, LogBytes: 64 << 10,
		Argv: []string{"bash", "-c", fmt.Sprintf("seq %d; exit 7", n)}})
	cmd, stdout := b.host(nil, "output")
	got := make([]byte, 700_000)
	if _, err := io.ReadFull(stdout, got); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(stdout) // it had passed on more
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, rest...)
	// The reader that comes back takes its time, and is one of this process.
	for round := 0; ; round++ {
		out := output(ctx, t, b.Client, "talks", sandbox.OutputOptions{Offset: int64(len(got)), Follow: true})
		var err error
		for read := 0; err == nil && (read < 300_000 || round == 2); {
			var data []byte
			var dropped int64
			_, data, dropped, err = out.Next(ctx)
			if dropped > 0 {
				t.Fatalf("%d bytes dropped at %d", dropped, len(got))
			}
			got, read = append(got, data...), read+len(data)
		}
		out.Close()
		if err == io.EOF {
			if in := out.Info(); in.Exit.Code != 7 {
				t.Errorf("exit %+v", in.Exit)
			}
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got, numbers(n)) {
		t.Errorf("%d bytes, want %d, or other ones", len(got), len(numbers(n)))
	}
}

// The host is killed while it uploads. A file that is written whole is as it was; one
// that is appended to has a beginning of the data, and the rest goes behind it.
func TestHostKilledDuringUpload(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	data := numbers(1_000_000)
	old := []byte("what was there before")
	if _, err := b.WriteFile(ctx, "upload", old, sandbox.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, way := range []string{"upload", "append"} {
		r, w := io.Pipe()
		cmd, _ := b.host(r, way)
		t.Cleanup(func() { w.Close() })
		const half = 3 << 20
		if _, err := w.Write(data[:half]); err != nil {
			t.Fatal(err)
		}
		waitFor(ctx, t, "some of it to arrive", func() bool {
			page, err := b.ListFiles(ctx, ".", sandbox.ListOptions{Hidden: true})
			if err != nil {
				t.Fatal(err)
			}
			return slices.ContainsFunc(page.Entries, func(e sandbox.FileInfo) bool { return e.Size >= 1<<20 })
		})
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		w.Close()
		_ = cmd.Wait()
		if way == "upload" {
			waitFor(ctx, t, "the half of it to be thrown away", func() bool {
				page, err := b.ListFiles(ctx, ".", sandbox.ListOptions{Hidden: true})
				return err == nil && len(page.Entries) == 1
			})
			if got, _, err := b.ReadFile(ctx, way, sandbox.ReadOptions{}); err != nil || !bytes.Equal(got, old) {
				t.Errorf("the file holds %d bytes (%v)", len(got), err)
			}
			continue
		}
		// What the guest had received is written; from there it goes on.
		size, stable := int64(-1), 0
		waitFor(ctx, t, "the guest to see the end", func() bool {
			fi, err := b.Stat(ctx, way)
			if err != nil {
				t.Fatal(err)
			}
			if stable++; fi.Size != size {
				size, stable = fi.Size, 0
			}
			return stable == 50
		})
		if _, err := b.WriteFrom(ctx, way, bytes.NewReader(data[size:]), sandbox.WriteOptions{Append: true}); err != nil {
			t.Fatal(err)
		}
		got := new(bytes.Buffer)
		f, err := b.OpenFile(ctx, way, sandbox.ReadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(got, f); err != nil {
			t.Fatal(err)
		}
		f.Close()
		if !bytes.Equal(got.Bytes(), data) {
			t.Errorf("the file has %d bytes, want %d; it went on at %d", got.Len(), len(data), size)
		}
	}
}

// The host is killed while a command of its runs. The command goes on; its output
// and its real exit code wait for the next host.
func TestHostKilledDuringCommand(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	cmd, _ := b.host(nil, "exec", "bash", "-c", `echo ran >> runs; echo begun; while [ ! -e go ]; do sleep 0.02; done; seq 1000; printf 'err\0' >&2; exit 9`)
	waitFor(ctx, t, "the command to begin", func() bool {
		_, err := b.WaitLog(ctx, "long", sandbox.LogWait{Text: "begun", Timeout: time.Second})
		return err == nil
	})
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if in, err := b.Get(ctx, "long"); err != nil || !in.Running {
		t.Fatalf("%+v, %v", in, err)
	}
	if _, err := b.WriteFile(ctx, "go", nil, sandbox.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	in, err := b.Wait(ctx, "long")
	if err != nil || in.Exit.Code != 9 || in.Exit.Killed {
		t.Fatalf("%+v, %v", in, err)
	}
	out := output(ctx, t, b.Client, "long", sandbox.OutputOptions{Follow: true})
	defer out.Close()
	said := map[sandbox.Stream]string{}
	for {
		stream, data, dropped, err := out.Next(ctx)
		said[stream] += string(data)
		if dropped > 0 {
			t.Errorf("%d bytes dropped", dropped)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if said[sandbox.Stdout] != "begun\n"+string(numbers(1000)) || said[sandbox.Stderr] != "err\x00" {
		t.Errorf("stdout %.100q, stderr %q", said[sandbox.Stdout], said[sandbox.Stderr])
	}
	if runs, _, err := b.ReadFile(ctx, "runs", sandbox.ReadOptions{}); err != nil || string(runs) != "ran\n" {
		t.Errorf("it ran %q, %v", runs, err)
	}
}
