package peer

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/capnweb/httprpc"
)

const (
	// targetWait is how long a client waits for the target it names.
	targetWait = 10 * time.Second
	// maxPairs bounds the relays that exist or are waited for.
	maxPairs = 1024
)

var errOtherEnded = errors.New("the other side of the relay has ended")

// relays joins sessions in pairs: what the target's side exports as its main
// object is the main object that the client's side gets.
type relays struct {
	notify func(*http.Request, *capnweb.Session)

	mu    sync.Mutex
	pairs map[string]*pair
}

// pair is one relay. It is in the table from the arrival of its first side until
// the end of either.
type pair struct {
	taken   [2]bool       // the sides that have come
	arrived chan struct{} // closed when target is set
	target  *capnweb.Session
}

type side int

const (
	targetSide side = iota
	clientSide
)

// target serves the socket whose main object is relayed.
func (rs *relays) target(w http.ResponseWriter, r *http.Request) {
	p := rs.join(w, r, targetSide)
	if p == nil {
		return
	}
	defer rs.forget(r.FormValue("id"), p)
	rs.serve(w, r, nil, func(s *capnweb.Session) {
		p.target = s
		close(p.arrived)
	})
}

// client serves the socket that gets the target's main object.
func (rs *relays) client(w http.ResponseWriter, r *http.Request) {
	p := rs.join(w, r, clientSide)
	if p == nil {
		return
	}
	defer rs.forget(r.FormValue("id"), p)
	timeout := time.NewTimer(targetWait)
	defer timeout.Stop()
	select {
	case <-p.arrived:
	case <-timeout.C:
		http.Error(w, "no target came: connect /mitm/target with the same id", http.StatusGatewayTimeout)
		return
	case <-r.Context().Done():
		return
	}
	main := p.target.Main()
	defer main.Close()
	// Each side ends when the other does.
	served, cancel := context.WithCancel(context.Background())
	var follow sync.WaitGroup
	rs.serve(w, r, main, func(s *capnweb.Session) {
		follow.Go(func() {
			select {
			case <-p.target.Done():
				_ = s.Close(errOtherEnded)
			case <-served.Done():
			}
		})
	})
	cancel()
	follow.Wait()
	_ = p.target.Close(errOtherEnded)
}

// serve runs one side until it ends.
func (rs *relays) serve(w http.ResponseWriter, r *http.Request, main any, begun func(*capnweb.Session)) {
	h := &httprpc.Handler{
		Main: func(*http.Request) (any, error) { return main, nil },
		OnSession: func(r *http.Request, s *capnweb.Session) {
			begun(s)
			rs.notify(r, s)
		},
		AllowOrigins: []string{"*"},
		Session:      []capnweb.Option{capnweb.WithNewerEncodings()},
	}
	h.ServeHTTP(w, r)
}

// join takes one side of a relay, or answers why not and returns nil.
func (rs *relays) join(w http.ResponseWriter, r *http.Request, s side) *pair {
	id := r.FormValue("id")
	switch {
	case r.Header.Get("Upgrade") == "":
		http.Error(w, "the relay takes WebSockets only", http.StatusUpgradeRequired)
		return nil
	case id == "":
		http.Error(w, "the query needs an id, the same for both sides", http.StatusBadRequest)
		return nil
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	p := rs.pairs[id]
	if p == nil {
		if len(rs.pairs) >= maxPairs {
			http.Error(w, "too many relays", http.StatusServiceUnavailable)
			return nil
		}
		p = &pair{arrived: make(chan struct{})}
		rs.pairs[id] = p
	}
	if p.taken[s] {
		http.Error(w, "this side of the relay is taken: use another id", http.StatusConflict)
		return nil
	}
	p.taken[s] = true
	return p
}

func (rs *relays) forget(id string, p *pair) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rs.pairs[id] == p {
		delete(rs.pairs, id)
	}
}
