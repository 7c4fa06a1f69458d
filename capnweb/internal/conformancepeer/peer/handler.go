package peer

import (
	"net/http"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/capnweb/httprpc"
)

// benchMessageBytes is the message limit with Options.Bench: 64 MiB of bytes
// are 86 MiB of base64.
const benchMessageBytes = 256 << 20

// Options say what is served.
type Options struct {
	// Bench serves the object of the benchmark on /, with message limits of 256 MiB.
	Bench bool
	// OnSession, if set, is told of each WebSocket session. It must not block.
	OnSession func(*http.Request, *capnweb.Session)
}

// New makes the handler: / is the object, /mitm/ the relay.
func New(o Options) http.Handler {
	notify := func(r *http.Request, s *capnweb.Session) {
		if o.OnSession != nil {
			o.OnSession(r, s)
		}
	}
	front := &httprpc.Handler{
		Main:         func(*http.Request) (any, error) { return newConformance(), nil },
		OnSession:    notify,
		AllowOrigins: []string{"*"},
		Session:      []capnweb.Option{capnweb.WithNewerEncodings()},
	}
	if o.Bench {
		front.Main = func(*http.Request) (any, error) { return newBench(), nil }
		front.MaxMessageBytes = benchMessageBytes
		front.Session = append(front.Session, capnweb.WithLimits(capnweb.Limits{MaxMessageBytes: benchMessageBytes, MaxQueuedBytes: 2 * benchMessageBytes}))
	}
	mux := http.NewServeMux()
	mux.Handle("/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Batches are answered to pages of any origin, like WebSockets.
		w.Header().Set("Access-Control-Allow-Origin", "*")
		front.ServeHTTP(w, r)
	}))
	relays := &relays{pairs: map[string]*pair{}, notify: notify}
	mux.HandleFunc("/mitm/target", relays.target)
	mux.HandleFunc("/mitm/client", relays.client)
	return mux
}
