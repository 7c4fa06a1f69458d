package capnweb_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
)

// linePeer answers pulls on a socket: each with its number, unless it is told otherwise.
type linePeer struct {
	t    *testing.T
	conn net.Conn
	s    *capnweb.Session
	mu   sync.Mutex
	say  func(id int) string // the answer; "" for none
	held chan int            // what was pulled and not answered
	said chan string         // all other messages, but for pushes and releases
}

func newLinePeer(t *testing.T) *linePeer {
	t.Helper()
	a, b := unixPair(t)
	p := &linePeer{t: t, conn: b, held: make(chan int, 64), said: make(chan string, 64)}
	p.s = capnweb.NewSession(capnweb.NewStreamTransport(a, 0), nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(b); lines.Scan(); {
			var id int
			line := lines.Text()
			switch _, err := fmt.Sscanf(line, `["pull",%d]`, &id); {
			case err == nil:
				p.answer(id)
			case !strings.HasPrefix(line, `["push"`) && !strings.HasPrefix(line, `["release"`):
				p.said <- line
			}
		}
	}()
	t.Cleanup(func() {
		_ = p.s.Close(nil)
		_ = b.Close()
		<-p.s.Done()
		<-done
	})
	return p
}

func (p *linePeer) answer(id int) {
	p.mu.Lock()
	say := p.say
	p.mu.Unlock()
	text := fmt.Sprintf(`["resolve",%d,%d]`+"\n", id, id)
	if say != nil {
		text = say(id)
	}
	if text == "" {
		p.held <- id
		return
	}
	p.send(text)
}

func (p *linePeer) send(text string) { _, _ = io.WriteString(p.conn, text) }

// then says what the peer answers from now on.
func (p *linePeer) then(say func(id int) string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.say = say
}

// alone makes calls until the session is left to the next caller.
func (p *linePeer) alone(ctx context.Context) {
	p.t.Helper()
	for range 1000 {
		if _, err := capnweb.Call[int](ctx, p.s.Main(), "f"); err != nil {
			p.t.Fatal(err)
		}
		if capnweb.NobodyReads(p.s) {
			return
		}
	}
	p.t.Fatal("callers never read by themselves")
}

func (p *linePeer) ended() error {
	p.t.Helper()
	select {
	case <-p.s.Done():
	case <-time.After(patience):
		p.t.Fatal("the session goes on")
	}
	return p.s.Err()
}

func nothing(int) string { return "" }

// TestTurns: callers that are alone read their answers themselves, and whatever else comes is read too.
func TestTurns(t *testing.T) {
	t.Parallel()
	type test = func(context.Context, *testing.T, *linePeer)
	call := func(ctx context.Context, p *linePeer) (int, error) {
		return capnweb.Call[int](ctx, p.s.Main(), "f")
	}
	for name, f := range map[string]test{
		"the reader comes back": func(ctx context.Context, t *testing.T, p *linePeer) {
			for deadline := time.Now().Add(patience); capnweb.NobodyReads(p.s); time.Sleep(capnweb.RestTime) {
				if time.Now().After(deadline) {
					t.Fatal("nobody reads any more")
				}
			}
		},
		"the peer goes": func(ctx context.Context, t *testing.T, p *linePeer) {
			_ = p.conn.Close()
			select {
			case <-p.s.Context().Done(): // which, unlike Done, does not ask
			case <-ctx.Done():
				t.Fatal("nobody sees that the peer has gone")
			}
		},
		"the peer ends it": func(ctx context.Context, t *testing.T, p *linePeer) {
			p.send(`["abort",["error","RangeError","enough"]]` + "\n")
			select {
			case <-p.s.Context().Done():
			case <-ctx.Done():
				t.Fatal("nobody sees the end")
			}
			if err := p.ended(); !strings.Contains(err.Error(), "enough") {
				t.Error(err)
			}
		},
		"the peer ends it instead of answering": func(ctx context.Context, t *testing.T, p *linePeer) {
			p.then(func(int) string { return `["abort",["error","RangeError","enough"]]` + "\n" })
			if _, err := call(ctx, p); !errors.Is(err, capnweb.ErrDisconnected) || !strings.Contains(err.Error(), "enough") {
				t.Error(err)
			}
			_ = p.ended()
		},
		"the peer ends it after its answer": func(ctx context.Context, t *testing.T, p *linePeer) {
			p.then(func(id int) string {
				return fmt.Sprintf(`["resolve",%d,7]`+"\n"+`["abort",["error","RangeError","enough"]]`+"\n", id)
			})
			if n, err := call(ctx, p); n != 7 || err != nil {
				t.Error(n, err)
			}
			if err := p.ended(); !strings.Contains(err.Error(), "enough") {
				t.Error(err)
			}
		},
		"an answer that is none": func(ctx context.Context, t *testing.T, p *linePeer) {
			p.then(func(id int) string { return fmt.Sprintf(`["resolve",%d,`+"\n", id) })
			if _, err := call(ctx, p); !errors.Is(err, capnweb.ErrDisconnected) {
				t.Error(err)
			}
			if err := p.ended(); !strings.Contains(err.Error(), "JSON") {
				t.Error(err)
			}
			if got := <-p.said; !strings.HasPrefix(got, `["abort",["error","SyntaxError"`) {
				t.Errorf("the peer is told %s", got)
			}
		},
		"an answer in pieces": func(ctx context.Context, t *testing.T, p *linePeer) {
			p.then(nothing)
			go func() {
				id := <-p.held
				for _, c := range fmt.Sprintf(`["resolve",%d,"piecemeal"]`+"\n", id) {
					p.send(string(c))
				}
			}()
			if s, err := capnweb.Call[string](ctx, p.s.Main(), "f"); s != "piecemeal" || err != nil {
				t.Error(s, err)
			}
		},
		"a refusal": func(ctx context.Context, t *testing.T, p *linePeer) {
			p.then(func(id int) string { return fmt.Sprintf(`["reject",%d,["error","RangeError","no"]]`+"\n", id) })
			var e *capnweb.Error
			if _, err := call(ctx, p); !errors.As(err, &e) || e.Name != "RangeError" || e.Message != "no" {
				t.Error(err)
			}
			p.then(nil)
			p.alone(ctx)
		},
		"one that gives up": func(ctx context.Context, t *testing.T, p *linePeer) {
			p.then(nothing)
			short, cancel := context.WithCancelCause(ctx)
			reason := errors.New("enough")
			go func() {
				p.held <- <-p.held // it waits by now
				cancel(reason)
			}()
			if _, err := call(short, p); !errors.Is(err, reason) {
				t.Error(err)
			}
			// The late answer is nobody's, and the connection has lost nothing.
			p.send(fmt.Sprintf(`["resolve",%d,1]`+"\n", <-p.held))
			p.then(nil)
			if _, err := call(ctx, p); err != nil {
				t.Error(err)
			}
			p.alone(ctx)
		},
		"one that gives up within its answer": func(ctx context.Context, t *testing.T, p *linePeer) {
			p.then(nothing)
			short, cancel := context.WithCancel(ctx)
			rest := make(chan string, 1)
			go func() {
				answer := fmt.Sprintf(`["resolve",%d,1]`+"\n", <-p.held)
				p.send(answer[:9])
				cancel()
				rest <- answer[9:]
			}()
			if _, err := call(short, p); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			p.then(nil)
			p.send(<-rest)
			if _, err := call(ctx, p); err != nil {
				t.Error(err)
			}
		},
		"two, answered the other way round": func(ctx context.Context, t *testing.T, p *linePeer) {
			p.then(nothing)
			var wg sync.WaitGroup
			var ids []int
			for range 2 {
				wg.Go(func() {
					if _, err := call(ctx, p); err != nil {
						t.Error(err)
					}
				})
				ids = append(ids, <-p.held)
			}
			p.send(fmt.Sprintf(`["resolve",%d,2]`+"\n", ids[1]))
			p.send(fmt.Sprintf(`["resolve",%d,1]`+"\n", ids[0]))
			wg.Wait()
		},
		"a promise beside it": func(ctx context.Context, t *testing.T, p *linePeer) {
			first := p.s.Main().Call("g")
			defer first.Close()
			var n int
			if err := first.Await(ctx, &n); err != nil || n == 0 {
				t.Error(n, err)
			}
		},
		"a call back": func(ctx context.Context, t *testing.T, p *linePeer) {
			p.then(nothing)
			called := make(chan struct{})
			back := capnweb.Func(func() { close(called) })
			go func() {
				id := <-p.held
				p.send(`["push",["pipeline",-1,[],[]]]` + "\n")
				<-called // before the answer
				p.send(fmt.Sprintf(`["resolve",%d,1]`+"\n", id))
			}()
			if n, err := capnweb.Call[int](ctx, p.s.Main(), "f", back); n != 1 || err != nil {
				t.Error(n, err)
			}
		},
		"a call of nothing": func(ctx context.Context, t *testing.T, p *linePeer) {
			p.send(`["push",["pipeline",0,["f"],[]]]` + "\n" + `["pull",1]` + "\n")
			select {
			case got := <-p.said:
				if !strings.HasPrefix(got, `["reject",1,`) {
					t.Error(got)
				}
			case <-ctx.Done():
				t.Fatal("no answer")
			}
		},
		"a value that has a promise in it": func(ctx context.Context, t *testing.T, p *linePeer) {
			p.then(func(id int) string {
				return fmt.Sprintf(`["resolve",%d,{"later":["promise",-1]}]`+"\n"+`["resolve",-1,5]`+"\n", id)
			})
			if v, err := capnweb.Call[map[string]int](ctx, p.s.Main(), "f"); v["later"] != 5 || err != nil {
				t.Error(v, err)
			}
		},
		"it is closed meanwhile": func(ctx context.Context, t *testing.T, p *linePeer) {
			p.then(nothing)
			go func() {
				<-p.held
				_ = p.s.Close(nil)
			}()
			if _, err := call(ctx, p); !errors.Is(err, capnweb.ErrDisconnected) {
				t.Error(err)
			}
		},
		"it is closed when nobody reads": func(ctx context.Context, t *testing.T, p *linePeer) {
			_ = p.s.Close(nil)
			if _, err := call(ctx, p); !errors.Is(err, capnweb.ErrDisconnected) {
				t.Error(err)
			}
		},
		"somebody asks for the end": func(ctx context.Context, t *testing.T, p *linePeer) {
			if p.s.Done(); capnweb.NobodyReads(p.s) {
				t.Error("nobody reads")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := testContext(t)
			p := newLinePeer(t)
			p.alone(ctx)
			f(ctx, t, p)
		})
	}
}

// TestTurnsOfMany: callers alone and at once, patient and not, on one session.
func TestTurnsOfMany(t *testing.T) {
	t.Parallel()
	a, b := unixPair(t)
	client := capnweb.NewSession(capnweb.NewStreamTransport(a, 0), nil)
	server := capnweb.NewSession(capnweb.NewStreamTransport(b, 0), testMain())
	ctx := testContext(t)
	rounds := 30
	if long() {
		rounds = 1000
	}
	for round := range rounds {
		var wg sync.WaitGroup
		for i := range 1 + round%4 {
			wg.Go(func() {
				for n := range 12 {
					c, cancel := context.WithCancel(ctx)
					if i == 1 && n%3 == 0 {
						go cancel() // at any moment
					}
					switch got, err := capnweb.Call[int](c, client.Main(), "square", n); {
					case err != nil && c.Err() == nil, err == nil && got != n*n:
						t.Errorf("%d squared: %d, %v", n, got, err)
					}
					cancel()
				}
			})
		}
		wg.Wait()
	}
	waitStats(t, client, 1, 1)
	waitStats(t, server, 1, 1)
	_ = client.Close(nil)
	<-server.Done()
}
