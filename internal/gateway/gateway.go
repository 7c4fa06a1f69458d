package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// Config says what a gateway stands in front of. Upstream, Listen and Directory are
// needed.
type Config struct {
	// Upstream carries requests to OpenCode. Their URLs have the host "opencode";
	// the transport decides where that is. It must not set a deadline for response
	// headers: a prompt is answered when the turn is over.
	Upstream http.RoundTripper
	// UpstreamHost is the Host header that OpenCode sees. Default "127.0.0.1:4096".
	UpstreamHost string

	// Ready waits until OpenCode can be asked; its error is the reason for a 503.
	// Every request that needs OpenCode waits for it. Nil means always ready.
	Ready func(context.Context) error
	// ReadyTimeout bounds one wait for Ready. Default 60 s.
	ReadyTimeout time.Duration

	// Listen is the address on which the gateway is served, host:port. It decides
	// whether a password is needed.
	Listen string
	// Hosts are names, without port, by which the gateway may be called, besides
	// localhost, the loopback addresses, the host of Listen and the IP address that
	// a connection came in on.
	Hosts []string
	// Password of clients; empty means none, which only a loopback address may have.
	Password string
	// Username of clients. Default "opencode", which stock clients send.
	Username string

	// StallTimeout ends a connection whose client does not take a write. Default 30 s.
	StallTimeout time.Duration

	// Preview serves the host names that it owns, before any gate of the gateway's: it
	// has its own. Nil: no names are set apart, so all but the gateway's are foreign.
	Preview Preview

	// Directory is the only directory that OpenCode is ever asked about.
	Directory string

	// Answers replaces rows of the table by handlers, by "METHOD /pattern" as the
	// row has it; [Table] lists them. Path parameters are read by Request.PathValue.
	// The handlers stand behind all the gates, and find the body read and checked.
	Answers map[string]http.Handler

	// Clients is told which client works with which session. Nil: nobody.
	Clients Clients
	// Attach makes the parts of a prompt that stand in the place of a part that names
	// a file. Nil refuses such parts.
	Attach func(ctx context.Context, sessionID string, file File) ([]map[string]any, error)
	// Command is told of a slash command that a session is about to run, until the
	// function that it returns is called. Nil: nobody.
	Command func(sessionID string) (done func())
	// Events is called once with a function that sends an event to the clients that
	// follow events. Nil: only OpenCode sends some.
	Events func(send func(Event))
	// Ticket says that a request has a ticket of its own, which its handler looks at,
	// so that it needs no password. Nil: no request has.
	Ticket func(*http.Request) bool

	// Logger gets one record per request (debug) and per refusal (info), never a
	// query, a header or a body. Nil discards them.
	Logger *slog.Logger
}

// Clients is told of clients that have passed the gates.
type Clients interface {
	// Worked: the client works with a session.
	Worked(r *http.Request, sessionID string)
	// Watching: the client follows events, until done is called.
	Watching(r *http.Request) (done func())
}

// File is a file part of a prompt that names a file instead of carrying its content.
type File struct {
	// Path is absolute.
	Path string
	// Start and End are lines, counted from 1; 0 is none.
	Start, End int
	// Mime is what the client says that the file is; Filename what it calls it.
	Mime, Filename string
}

// Preview is a handler with host names of its own, foreign to the gateway's.
type Preview interface {
	http.Handler
	Owns(host string) bool
}

// Limits that are not configured.
const (
	maxInFlight   = 1024             // requests at once, streams of events included; then 503
	maxHeader     = 64 << 10         // bytes of request headers
	headerTimeout = 10 * time.Second // request headers
	idleTimeout   = 2 * time.Minute  // a connection between two requests
)

// gateway is the handler that New returns.
type gateway struct {
	cfg      Config
	log      *slog.Logger
	routes   *router
	proxy    *httputil.ReverseProxy
	streams  *streams
	events   *events
	bodies   *semaphore.Weighted
	inFlight chan struct{}
	toasted  atomic.Int64 // when a refusal was last shown in clients, UnixNano
}

// New checks the configuration and returns the front. The error is an *[Error].
func New(cfg Config) (http.Handler, error) { return newGateway(cfg, table) }

func newGateway(cfg Config, rows []row) (*gateway, error) {
	wrong := func(message, hint string) (*gateway, error) {
		return nil, &Error{Code: "INVALID_CONFIG", Message: message, Hint: hint}
	}
	if cfg.Upstream == nil {
		return wrong("no upstream is set", "set Config.Upstream")
	}
	if cfg.Directory == "" || cfg.Directory[0] != '/' {
		return wrong("the directory is not an absolute path", "set Config.Directory")
	}
	host, _, err := net.SplitHostPort(cfg.Listen)
	if err != nil {
		return wrong("the listen address "+cfg.Listen+" is not host:port", "use an address such as 127.0.0.1:8787")
	}
	if cfg.Password == "" && !isLoopback(host) {
		return wrong("the listen address "+cfg.Listen+" can be reached from other machines and no password is set",
			"set a password, or listen on 127.0.0.1")
	}
	if cfg.Username == "" {
		cfg.Username = "opencode"
	}
	if strings.Contains(cfg.Username, ":") {
		return wrong("the user name contains a colon", "choose another one")
	}
	if cfg.UpstreamHost == "" {
		cfg.UpstreamHost = "127.0.0.1:4096"
	}
	if cfg.ReadyTimeout <= 0 {
		cfg.ReadyTimeout = 60 * time.Second
	}
	if cfg.StallTimeout <= 0 {
		cfg.StallTimeout = 30 * time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Hosts = slices.Clone(cfg.Hosts)
	for i, name := range cfg.Hosts {
		cfg.Hosts[i] = strings.ToLower(strings.TrimSuffix(name, "."))
	}
	if host != "" && net.ParseIP(host) == nil {
		cfg.Hosts = append(cfg.Hosts, strings.ToLower(host))
	}
	routes, err := newRouter(rows, cfg.Answers)
	if err != nil {
		return nil, &Error{Code: "INVALID_CONFIG", Message: "the table of routes cannot be used", Hint: "see gateway.Table", Err: err}
	}
	g := &gateway{
		cfg: cfg, log: cfg.Logger, routes: routes, streams: newStreams(),
		events:   &events{open: map[*spliced]struct{}{}, dir: cfg.Directory},
		bodies:   semaphore.NewWeighted(maxBodies),
		inFlight: make(chan struct{}, maxInFlight),
	}
	g.proxy = g.newProxy()
	if cfg.Events != nil {
		cfg.Events(g.events.send)
	}
	return g, nil
}

// NewServer returns a server for the handler with the limits that a front needs on
// headers and idle connections. It has no limit on the time that a response takes;
// the handler bounds each write.
func NewServer(h http.Handler, log *slog.Logger) *http.Server {
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
	}
	if log != nil {
		srv.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug)
	}
	return srv
}

// ServeHTTP takes a request through the gates that doc.go lists.
func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if p := g.cfg.Preview; p != nil && p.Owns(r.Host) {
		p.ServeHTTP(w, r)
		return
	}
	begin := time.Now()
	sw := newStallWriter(w, g.cfg.StallTimeout)
	defer sw.end()
	pattern := ""
	err := g.serve(sw, r, &pattern)
	if err == nil {
		g.log.DebugContext(r.Context(), "request", "method", r.Method, "route", pattern, "status", sw.status, "duration", time.Since(begin))
		return
	}
	facts := []any{"method", r.Method, "route", pattern, "status", err.Status, "code", err.Code}
	if err.Err != nil {
		facts = append(facts, "cause", err.Err)
	}
	g.log.InfoContext(r.Context(), "request refused", facts...)
	if !sw.wrote {
		g.toast(r, err)
		WriteError(sw, err)
	}
}

func (g *gateway) serve(w http.ResponseWriter, r *http.Request, pattern *string) *Error {
	g.setHeaders(w.Header(), r)
	limitBody(w, r)
	select {
	case g.inFlight <- struct{}{}:
		defer func() { <-g.inFlight }()
	default:
		return &Error{Status: 503, Code: "TOO_MANY_REQUESTS", Message: "too many requests are open at once", Hint: "close some clients and try again", Retry: 5 * time.Second}
	}
	if err := g.checkOrigin(r); err != nil {
		return err
	}
	if err := g.checkPassword(w, r); err != nil {
		return err
	}
	path, ok := cleanPath(r.URL)
	if !ok {
		return &Error{Status: 403, Code: "UNKNOWN_ROUTE", Message: "the path is not one that this server has", Hint: "GET /doc lists the operations"}
	}
	route, params, known := g.routes.find(r.Method, path)
	switch {
	case known:
		return &Error{Status: 403, Code: "UNKNOWN_ROUTE", Message: "this route has no method " + clip(r.Method, 20), Hint: "GET /doc lists the operations"}
	case route == nil, route.page && !navigates(r):
		return &Error{Status: 403, Code: "UNKNOWN_ROUTE", Message: "nobody has decided about this route yet, so it is shut", Hint: "GET /doc lists the operations"}
	}
	*pattern = route.pattern
	if route.kind == refuse {
		return &Error{Status: 403, Code: "REFUSED", Message: r.Method + " " + route.pattern + " is refused", Hint: route.reason}
	}
	if isUpgrade(r) && !route.upgrade {
		return &Error{Status: 403, Code: "NO_WEBSOCKET", Message: "this route is no WebSocket", Hint: "ask it by plain HTTP"}
	}
	if r.Method == http.MethodHead && (route.events || route.hold) {
		return &Error{Status: 403, Code: "UNKNOWN_ROUTE", Message: "this route has no method HEAD", Hint: "use GET"}
	}
	if route.kind == answer && route.handler == nil {
		route.reply(g, w)
		return nil
	}
	if err := g.awaitReady(r.Context()); err != nil {
		return err
	}
	if g.cfg.Clients != nil {
		if id := params["sessionID"]; id != "" && (r.Method != http.MethodGet || route.opens) {
			g.cfg.Clients.Worked(r, id)
		}
		if route.events {
			defer g.cfg.Clients.Watching(r)()
		}
	}
	for name, value := range params {
		r.SetPathValue(name, value)
	}
	if route.kind == answer {
		body, _, err := g.takeBody(w, r, route)
		if err != nil {
			return err
		}
		if body != nil {
			defer body.Close()
			r.Body, r.ContentLength = body, body.size
		}
		route.handler.ServeHTTP(w, r)
		return nil
	}
	return g.forward(w, r, route)
}

// awaitReady waits for OpenCode.
func (g *gateway) awaitReady(ctx context.Context) *Error {
	if g.cfg.Ready == nil {
		return nil
	}
	wait, cancel := context.WithTimeout(ctx, g.cfg.ReadyTimeout)
	defer cancel()
	err := g.cfg.Ready(wait)
	if err == nil {
		return nil
	}
	message := "OpenCode is not running: " + err.Error()
	if errors.Is(err, context.DeadlineExceeded) {
		message = "OpenCode did not become ready in " + g.cfg.ReadyTimeout.String()
	}
	return &Error{Status: 503, Code: "NOT_READY", Message: message, Hint: "try again soon, or look at the server's log", Retry: 5 * time.Second, Err: err}
}

// Row is one line of the table, for documentation and checks.
type Row struct {
	Method, Pattern string
	Action          string // pass, refuse or answer
	Reason          string
}

// Table lists the allow-list in its order. What is not in it is refused.
func Table() []Row {
	actions := map[kind]string{pass: "pass", refuse: "refuse", answer: "answer"}
	out := make([]Row, len(table))
	for i, r := range table {
		out[i] = Row{Method: r.method, Pattern: r.pattern, Action: actions[r.kind], Reason: r.reason}
	}
	return out
}

func clip(s string, n int) string { return strings.ToValidUTF8(s[:min(len(s), n)], "") }
