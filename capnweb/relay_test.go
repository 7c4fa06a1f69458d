package capnweb_test

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
)

// endless is a source without end; stopped is closed when it is cancelled.
func endless() (s *capnweb.ReadableStream, produced *atomic.Int64, stopped chan error) {
	produced, stopped = new(atomic.Int64), make(chan error, 1)
	return capnweb.NewSource(func(context.Context) (any, error) {
		produced.Add(1)
		return make([]byte, 10_000), nil
	}, func(err error) { stopped <- err }), produced, stopped
}

// silent is a source that never yields anything until it is closed.
type silent struct{ done chan struct{} }

func (s silent) Read([]byte) (int, error) { <-s.done; return 0, io.ErrClosedPipe }
func (s silent) Close() error             { close(s.done); return nil }

// TestRelayEnds: when a session in front ends, streams behind it are stopped, and
// the other way round.
func TestRelayEnds(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"front", "behind", "reader"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			s, _, stopped := endless()
			quiet := silent{make(chan struct{})}
			backClient, backServer := connect(t, nil, capnweb.NewTarget(capnweb.Methods{
				"source": func() *capnweb.ReadableStream { return s },
				"silent": func() *capnweb.ReadableStream { return capnweb.NewReader(quiet) },
			}))
			front, gate := connect(t, nil, backClient.Main())
			ctx := testContext(t)
			r, err := capnweb.Call[*capnweb.ReadableStream](ctx, front.Main(), "source")
			if err != nil {
				t.Fatal(err)
			}
			q, err := capnweb.Call[*capnweb.ReadableStream](ctx, front.Main(), "silent")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(r, make([]byte, 100_000)); err != nil {
				t.Fatal(err)
			}
			switch end {
			case "front":
				front.Close(nil)
				<-gate.Done()
				backServer.Close(nil) // ends the silent one
			case "behind":
				backServer.Close(nil)
				if _, err := io.Copy(io.Discard, r); err == nil {
					t.Fatal("the stream ended well")
				}
			case "reader":
				r.Close()
				q.Close()
			}
			select {
			case <-stopped:
			case <-time.After(10 * time.Second):
				t.Fatal("the source was not stopped")
			}
			if end == "reader" {
				// The silent source learns it with the session: it has nothing to write.
				backServer.Close(nil)
			}
			select {
			case <-quiet.done:
			case <-time.After(10 * time.Second):
				t.Fatal("the silent source was not closed")
			}
		})
	}
}

// TestRelayBackPressure: a reader who stops reading stops the source, two
// sessions away.
func TestRelayBackPressure(t *testing.T) {
	t.Parallel()
	s, produced, _ := endless()
	backClient, _ := connect(t, nil, capnweb.NewTarget(capnweb.Methods{"source": func() *capnweb.ReadableStream { return s }}))
	front, _ := connect(t, nil, backClient.Main())
	r, err := capnweb.Call[*capnweb.ReadableStream](testContext(t), front.Main(), "source")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	// Until nothing moves any more.
	last := int64(-1)
	for still := 0; still < 20; {
		time.Sleep(5 * time.Millisecond)
		if n := produced.Load(); n == last {
			still++
		} else {
			last, still = n, 0
		}
		if last > 1000 {
			t.Fatalf("%d chunks were produced for nobody", last)
		}
	}
	if _, err := io.ReadFull(r, make([]byte, 5_000_000)); err != nil {
		t.Fatal(err)
	}
	if n := produced.Load(); n < 500 {
		t.Fatal(n)
	}
}

// TestRelayRefusal: calls through a relay whose peer behind does not read are
// rejected, and do not end the session behind.
func TestRelayRefusal(t *testing.T) {
	t.Parallel()
	stuck, behind := capnweb.Pipe() // nobody reads the other end
	defer stuck.Close(nil)
	back := capnweb.NewSession(behind, nil, capnweb.WithLimits(capnweb.Limits{MaxQueuedBytes: 100_000}))
	front, _ := connect(t, nil, back.Main())
	ctx := testContext(t)
	var refused error
	for range 100 {
		p := front.Main().Call("x", make([]byte, 10_000))
		short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		err := p.Await(short, nil)
		cancel()
		p.Close()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			refused = err
			break
		}
	}
	var e *capnweb.Error
	if !errors.As(refused, &e) || e.Name != "TypeError" {
		t.Fatal(refused)
	}
	if back.Err() != nil {
		t.Fatal(back.Err())
	}
	back.Close(nil)
	<-back.Done()
}
