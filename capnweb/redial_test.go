package capnweb_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
)

func TestRedialer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var dials atomic.Int32
		var servers []*capnweb.Session
		down := errors.New("down")
		r := &capnweb.Redialer{Dial: func(context.Context) (*capnweb.Session, error) {
			if n := dials.Add(1); n == 2 || n == 3 {
				return nil, down
			}
			a, b := capnweb.Pipe()
			servers = append(servers, capnweb.NewSession(b, testMain()))
			return capnweb.NewSession(a, nil), nil
		}}
		ctx := t.Context()
		call := func() {
			t.Helper()
			main, err := r.Main(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if n, err := capnweb.Call[int](ctx, main, "ret"); err != nil || n != 7 {
				t.Fatal(n, err)
			}
		}
		call()
		call()
		if dials.Load() != 1 {
			t.Fatal(dials.Load())
		}
		time.Sleep(time.Minute) // of the bubble's clock
		servers[0].Close(nil)
		synctest.Wait()
		began := time.Now()
		call() // after two failures
		if dials.Load() != 4 {
			t.Fatal(dials.Load())
		}
		if d := time.Since(began); d < 150*time.Millisecond || d > 300*time.Millisecond {
			t.Fatalf("paused %s", d)
		}
		r.Close()
		if _, err := r.Main(ctx); !errors.Is(err, capnweb.ErrRedialerClosed) {
			t.Fatal(err)
		}
		for _, s := range servers {
			s.Close(nil)
			<-s.Done()
		}
	})
}

func TestRedialerContext(t *testing.T) {
	t.Parallel()
	down := errors.New("down")
	r := &capnweb.Redialer{Dial: func(context.Context) (*capnweb.Session, error) { return nil, down }, MinDelay: time.Millisecond}
	defer r.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := r.Main(ctx); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, down) {
		t.Fatal(err)
	}
}
