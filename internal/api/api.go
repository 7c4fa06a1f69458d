package api

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/capnweb/httprpc"
	"github.com/tongs-dev/tongs/internal/fleet"
	"github.com/tongs-dev/tongs/internal/image"
	"github.com/tongs-dev/tongs/sandbox"
	"github.com/tongs-dev/tongs/sandbox/remote"
)

// Bounds of the endpoint.
const (
	// MaxSessions is how many WebSockets are open at the same time, MaxSessionsOfToken how many of
	// them with one issued token.
	MaxSessions        = 512
	MaxSessionsOfToken = 64
	// MaxBatches is how many HTTP batches are worked on at the same time.
	MaxBatches = 64
	// MaxRawStreams is how many raw connections one client of a sandbox has open.
	MaxRawStreams = 1024
	// maxCreations is how many sandboxes are being made at the same time.
	maxCreations = 8
	// callTimeout bounds the calls that change the set of sandboxes.
	callTimeout = 2 * time.Minute
	// checkpointTimeout bounds how long a checkpoint may take, or what starts from one.
	checkpointTimeout = 10 * time.Minute
	// pullTimeout bounds how long a sandbox that is to be made waits for its image.
	pullTimeout = 30 * time.Minute
)

// sessionLimits are those of one connection. A client of one sandbox has two references to it, and one
// for each stream; a program with thousands of processes to wait for has as many calls in flight.
var sessionLimits = capnweb.Limits{
	MaxMessageBytes: 32 << 20, MaxImports: 20_000, MaxExports: 20_000, MaxCallsInFlight: 4096,
	MaxQueuedBytes: 32 << 20, MaxPipeBytes: 8 << 20, MaxBlobBytes: 32 << 20, MaxMapCalls: 1000,
}

// Config is what an endpoint needs. Fleet, Tokens and Logger are required.
type Config struct {
	Fleet  *fleet.Fleet
	Tokens *Tokens
	Logger *slog.Logger
	// Version is what the endpoint says it is.
	Version string
	// Hosts are names under which the endpoint is reached, beside localhost and loopback addresses.
	Hosts []string
	// Origins are those of pages that may use the endpoint, such as http://localhost:5173.
	Origins []string
	// Surface makes the object that programs see of a sandbox; what it does not have is answered
	// here. The client stays the endpoint's. Default: none.
	Surface func(e fleet.Entry, client *sandbox.Client, destroy func(context.Context) error) *capnweb.Target
	// Root finds the root session of an OpenCode session, so that a subagent's session names its sandbox
	// too. Default: sessions are taken as they are.
	Root func(ctx context.Context, session string) (string, error)
	// Titles are those of root sessions, by id, for people. Default: none.
	Titles func(ctx context.Context) map[string]string
	// Project makes sandboxes start with the files of a project that has this id. Default: none do.
	Project func(id string) fleet.Preparation
	// Image gives the root file system of an image that a sandbox is to be made from, "host" included;
	// release is called when that has been made. Default: there is only what the fleet's recipe has.
	Image func(ctx context.Context, name string) (root image.Root, release func(), err error)
	// Forget is told of each sandbox that was destroyed here. Default: nobody is.
	Forget func(e fleet.Entry)
}

// Server is the endpoint, an http.Handler.
type Server struct {
	cfg      Config
	rpc      *httprpc.Handler
	creating chan struct{}
	batches  chan struct{}

	mu       sync.Mutex
	sessions map[*capnweb.Session]*peer
	count    int
	byToken  map[string]int
	closed   bool
}

// New makes an endpoint.
func New(cfg Config) *Server {
	s := &Server{
		cfg: cfg, creating: make(chan struct{}, maxCreations), batches: make(chan struct{}, MaxBatches),
		sessions: make(map[*capnweb.Session]*peer), byToken: make(map[string]int),
	}
	s.rpc = &httprpc.Handler{
		Main:            func(r *http.Request) (any, error) { return s.object(peerOf(r)), nil },
		OnSession:       s.opened,
		Protocol:        offeredToken,
		AllowOrigins:    originHosts(cfg.Origins), // they have been checked already
		MaxMessageBytes: sessionLimits.MaxMessageBytes,
		Session:         []capnweb.Option{capnweb.WithLimits(sessionLimits)},
		Batch:           httprpc.BatchOptions{MaxBodyBytes: 8 << 20, MaxMessages: 1000, Timeout: time.Minute},
	}
	cfg.Tokens.onEnd(s.dismiss)
	return s
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	h.Add("Vary", "Origin")
	origin, refused := s.checkOrigin(r)
	if refused != nil {
		writeError(w, refused)
		return
	}
	if origin != "" {
		h.Set("Access-Control-Allow-Origin", origin)
		if r.Method == http.MethodOptions {
			h.Set("Access-Control-Allow-Methods", "POST")
			h.Set("Access-Control-Allow-Headers", "authorization, content-type")
			h.Set("Access-Control-Max-Age", "600")
			w.WriteHeader(http.StatusNoContent)
			return
		}
	}
	switch r.URL.Path {
	case "/health":
		h.Set("Content-Type", "application/json")
		_, _ = w.Write([]byte("{\"ok\":true}\n")) // the client may be gone
	case remote.Path:
		s.serveRPC(w, r)
	default:
		writeError(w, &refusal{404, "NOT_FOUND", "there is nothing at " + limit(r.URL.Path, 100), "Cap'n Web is at /rpc"})
	}
}

func (s *Server) serveRPC(w http.ResponseWriter, r *http.Request) {
	p, refused := s.authenticate(r)
	if refused != nil {
		if refused.status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", `Bearer realm="Tongs"`)
		}
		writeError(w, refused)
		return
	}
	if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		if !s.enter(p) {
			writeError(w, &refusal{503, string(sandbox.CodeTooManyConnections), "too many connections are open", "close some, and try again"})
			return
		}
		defer s.leave(p)
	} else {
		select {
		case s.batches <- struct{}{}:
			defer func() { <-s.batches }()
		default:
			w.Header().Set("Retry-After", "1")
			writeError(w, &refusal{503, string(sandbox.CodeTooManyConnections), "too many batches are being worked on", "try again"})
			return
		}
	}
	s.rpc.ServeHTTP(w, withPeer(r, p))
}

// enter counts a WebSocket, if there is room for it.
func (s *Server) enter(p *peer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.count >= MaxSessions || p.token != "" && s.byToken[p.token] >= MaxSessionsOfToken {
		return false
	}
	s.count++
	s.byToken[p.token]++
	return true
}

func (s *Server) leave(p *peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count--
	if s.byToken[p.token]--; s.byToken[p.token] <= 0 {
		delete(s.byToken, p.token)
	}
}

// opened remembers a session until it ends. One whose token has ended meanwhile is ended, too.
func (s *Server) opened(r *http.Request, session *capnweb.Session) {
	p := peerOf(r)
	s.mu.Lock()
	closed := s.closed
	s.sessions[session] = p
	s.mu.Unlock()
	go func() {
		if closed || p.token != "" && !s.cfg.Tokens.good(p.token) {
			_ = session.Close(errTokenEnded)
		}
		<-session.Done()
		s.mu.Lock()
		delete(s.sessions, session)
		s.mu.Unlock()
	}()
}

var errTokenEnded = &capnweb.Error{Name: "Error", Message: "the token that this connection was opened with has ended"}

// dismiss ends the sessions of an issued token.
func (s *Server) dismiss(token string) {
	s.mu.Lock()
	var gone []*capnweb.Session
	for session, p := range s.sessions {
		if p.token == token {
			gone = append(gone, session)
		}
	}
	s.mu.Unlock()
	for _, session := range gone {
		go func() { _ = session.Close(errTokenEnded) }() // its end is not waited for
	}
}

// Close ends all connections and takes no more.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	var all []*capnweb.Session
	for session := range s.sessions {
		all = append(all, session)
	}
	s.mu.Unlock()
	var group sync.WaitGroup
	for _, session := range all {
		group.Go(func() { _ = session.Close(&capnweb.Error{Name: "Error", Message: "tongs is stopping"}) })
	}
	group.Wait()
}

// NewServer makes the http.Server of an endpoint, with its timeouts.
func NewServer(handler http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// refusal is an answer to a request that is not let in.
type refusal struct {
	status              int
	code, message, hint string
}

func writeError(w http.ResponseWriter, e *refusal) {
	body, err := json.Marshal(map[string]string{"code": e.code, "message": e.message, "hint": e.hint})
	if err != nil { // strings always encode
		body = []byte("{}")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.status)
	_, _ = w.Write(append(body, '\n')) // the client may be gone
}

func limit(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}

// IsLoopback says whether a listen address is reached from this machine alone.
func IsLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// contains reports whether one of the names is the given one, whatever its case.
func contains(names []string, name string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
}
