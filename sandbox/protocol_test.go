package sandbox_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"

	"github.com/tongs-dev/tongs/sandbox"
)

// Whatever line comes, it is understood as one thing, and said again as the same.
func FuzzGreeting(f *testing.F) {
	for _, line := range []string{"TONGS 1 RPC", "TONGS 1 RAW 0123456789abcdef0123456789abcdef", "TONGS 2 RPC", "TONGS 1 RAW", "TONGS 1 RPC x", "GET / HTTP/1.1", "", " ", "TONGS -1 RPC", "TONGS 1 RAW 0123456789ABCDEF0123456789ABCDEF"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		g, err := sandbox.ParseGreeting(line)
		if err != nil {
			if !sandbox.CodeOf(err).Known() {
				t.Errorf("error %v", err)
			}
			r := sandbox.Refusal(err)
			if !strings.HasPrefix(r, "ERR ") || strings.Count(r, "\n") != 1 || !strings.HasSuffix(r, "\n") || len(r) > sandbox.MaxGreetingBytes {
				t.Errorf("refusal %q", r)
			}
			return
		}
		if g.String() != line+"\n" {
			t.Errorf("%q is said again as %q", line, g)
		}
	})
}

func FuzzWelcome(f *testing.F) {
	for _, line := range []string{"OK 1 abc", "OK 2 abc", "OK 1", "OK 1 a b", "ERR SHUTTING_DOWN going", "ERR", "ERR x", "", "HTTP/1.1 400 Bad Request"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		w, err := sandbox.ParseWelcome(line)
		if err != nil {
			if !sandbox.CodeOf(err).Known() {
				t.Errorf("error %v", err)
			}
			return
		}
		if again, err := sandbox.ParseWelcome(strings.TrimSuffix(w.String(), "\n")); err != nil || again != w {
			t.Errorf("%q is %+v, and then %+v, %v", line, w, again, err)
		}
	})
}

func TestRefusalIsBounded(t *testing.T) {
	t.Parallel()
	r := sandbox.Refusal(sandbox.Errf(sandbox.CodeInternal, "x", "line\nbreak"+strings.Repeat("x", 10_000), "hint"))
	if len(r) > sandbox.MaxGreetingBytes || strings.Count(r, "\n") != 1 {
		t.Errorf("%d bytes: %q", len(r), r)
	}
	_, err := sandbox.ParseWelcome(strings.TrimSuffix(r, "\n"))
	if sandbox.CodeOf(err) != sandbox.CodeInternal {
		t.Errorf("error %v", err)
	}
}

// The first line is read, and nothing behind it, in whatever pieces it comes.
func TestGreetingLineLeavesTheRest(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	pairs := map[string]func() (net.Conn, net.Conn){
		"pipe": net.Pipe,
		"unix": func() (net.Conn, net.Conn) {
			a, err := net.Dial("unix", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			b, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			return a, b
		},
	}
	for name, pair := range pairs {
		for _, pieces := range [][]string{{"line\nrest"}, {"li", "ne", "\n", "rest"}, {"line", "\nre", "st"}, {"line\n", "rest"}} {
			a, b := pair()
			go func() {
				for _, p := range pieces {
					_, _ = io.WriteString(a, p)
				}
				a.Close()
			}()
			line, err := sandbox.ReadGreetingLine(b)
			rest, _ := io.ReadAll(b)
			if err != nil || line != "line" || string(rest) != "rest" {
				t.Errorf("%s %q: %q, %q, %v", name, pieces, line, rest, err)
			}
			b.Close()
		}
		for _, bad := range []string{"", "no newline", strings.Repeat("x", 2000)} {
			a, b := pair()
			go func() { _, _ = io.WriteString(a, bad); a.Close() }()
			if line, err := sandbox.ReadGreetingLine(b); err == nil {
				t.Errorf("%s %.20q: %q", name, bad, line)
			}
			b.Close()
		}
		a, b := pair()
		_ = b.SetReadDeadline(time.Now().Add(30 * time.Millisecond))
		var ne net.Error
		if _, err := sandbox.ReadGreetingLine(b); !errors.As(err, &ne) || !ne.Timeout() {
			t.Errorf("%s: error %v", name, err)
		}
		a.Close()
		b.Close()
	}
}

type frame struct {
	kind sandbox.FrameKind
	data []byte
}

func TestFramesTravel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		kinds := []sandbox.FrameKind{sandbox.FrameStdout, sandbox.FrameStderr, sandbox.FrameData, sandbox.FrameDropped, sandbox.FrameEnd}
		frames := rapid.SliceOf(rapid.Custom(func(t *rapid.T) frame {
			return frame{rapid.SampledFrom(kinds).Draw(t, "kind"), rapid.SliceOfN(rapid.Byte(), 0, 1).Draw(t, "seed")}
		})).Draw(t, "frames")
		var wire bytes.Buffer
		w := sandbox.NewFrameWriter(&wire)
		for i := range frames {
			frames[i].data = bytes.Repeat(append(frames[i].data, byte(i)), rapid.SampledFrom([]int{0, 1, 2047, 4096, 40_000, 200_000, 500_000}).Draw(t, "size"))
			if err := w.Write(frames[i].kind, frames[i].data); err != nil {
				t.Fatal(err)
			}
		}
		var src io.Reader = &wire
		if rapid.Bool().Draw(t, "in pieces") {
			src = iotest.HalfReader(src)
		}
		r := sandbox.NewFrameReader(src)
		for i, f := range frames {
			kind, data, err := r.Next()
			if err != nil || kind != f.kind || !bytes.Equal(data, f.data) {
				t.Fatalf("frame %d: kind %c, %d bytes, %v; want %c, %d bytes", i, kind, len(data), err, f.kind, len(f.data))
			}
		}
		if _, _, err := r.Next(); err != io.EOF {
			t.Fatalf("at the end: %v", err)
		}
	})
}

func TestFrameLimits(t *testing.T) {
	t.Parallel()
	if err := sandbox.NewFrameWriter(io.Discard).Write(sandbox.FrameData, make([]byte, sandbox.MaxFrameBytes+1)); err == nil {
		t.Error("a frame that is too large was written")
	}
	var b bytes.Buffer
	if err := sandbox.NewFrameWriter(&b).WriteError(sandbox.Errf(sandbox.CodeNoSpace, "write", "full", "empty it")); err != nil {
		t.Fatal(err)
	}
	_, _, err := sandbox.NewFrameReader(&b).Next()
	var e *sandbox.Error
	if !errors.As(err, &e) || *e != (sandbox.Error{Code: sandbox.CodeNoSpace, Op: "write", Message: "full", Hint: "empty it"}) {
		t.Errorf("%#v", err)
	}
}

// Hostile frames end in an error, never in much memory or a panic.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("O\x00\x00\x00\x02hi.\x00\x00\x00\x00"))
	f.Add([]byte("!\x00\x00\x00\x02{}"))
	f.Add([]byte("O\xff\xff\xff\xff"))
	f.Add([]byte("O\x00\x10\x00\x00short"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := sandbox.NewFrameReader(bytes.NewReader(data))
		total := 0
		for {
			_, payload, err := r.Next()
			if err != nil {
				break
			}
			if total += 5 + len(payload); total > len(data) {
				t.Fatalf("%d bytes of %d", total, len(data))
			}
		}
	})
}

// A guest that answers nonsense to a client gets no more than an error out of it.
func TestHostileGuest(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for _, reply := range []string{"nonsense\n", `["abort",["error","Error","go away"]]` + "\n", `["resolve",1,"a string"]` + "\n", `["resolve",1,{"info":5,"token":[[]]}]` + "\n", ""} {
		c, err := sandbox.Connect(ctx, func(context.Context) (net.Conn, error) {
			a, b := net.Pipe()
			go func() {
				defer b.Close()
				_, _ = sandbox.ReadGreetingLine(b)
				_, _ = io.WriteString(b, "OK 1 abc\n")
				_, _ = b.Read(make([]byte, 4096)) // a call
				_, _ = io.WriteString(b, reply)
				if reply != "" {
					_, _ = io.Copy(io.Discard, b)
				}
			}()
			return a, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Exec(ctx, sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"true"}}}); err == nil {
			t.Errorf("%q is taken for an answer", reply)
		} else if !sandbox.CodeOf(err).Known() {
			t.Errorf("%q: error %v", reply, err)
		}
		c.Close()
	}
}
