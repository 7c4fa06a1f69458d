package httprpc

import (
	"context"
	"errors"
	"net"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
)

// Handler serves sessions: over WebSockets, and as HTTP batches. Main is all it needs.
type Handler struct {
	// Main makes the main object of a session that a request opens; see
	// [capnweb.NewSession]. An error refuses the request: 403, or the status of a [*StatusError].
	Main func(*http.Request) (any, error)
	// OnSession, if set, is told of each WebSocket session before the first message is
	// read, to call the client from here. It must not block. The session ends by itself.
	OnSession func(*http.Request, *capnweb.Session)
	// Protocol, if set, chooses one of the subprotocols that a WebSocket client offers; "" is
	// none. A browser that offers some takes no connection without one of them.
	Protocol func(*http.Request) string
	// AllowOrigins are patterns of hosts whose pages may connect, beside pages of the
	// handler's own host: "example.com", "*.example.com", or "*" for all. Programs other
	// than browsers send no Origin and are not concerned.
	AllowOrigins []string
	// PingInterval is as in [DialOptions].
	PingInterval time.Duration
	// MaxMessageBytes is the longest message accepted: 32 MiB.
	MaxMessageBytes int
	// Session are the options of the sessions.
	Session []capnweb.Option
	// Batch says how batches are served.
	Batch BatchOptions
}

// StatusError refuses a request with an HTTP status.
type StatusError struct {
	Code    int
	Message string
}

func (e *StatusError) Error() string { return e.Message }

// ServeHTTP implements http.Handler. For a WebSocket it returns when the session is over.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case isUpgrade(r):
		h.serveWebSocket(w, r)
	case r.Method == http.MethodPost:
		h.serveBatch(w, r)
	default:
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "This endpoint only accepts POST requests.", http.StatusMethodNotAllowed)
	}
}

// matchHost matches a host, with or without its port, against a pattern such as
// "*.example.com".
func matchHost(pattern, host string) bool {
	pattern, host = strings.ToLower(pattern), strings.ToLower(host)
	if ok, err := path.Match(pattern, host); err == nil && ok {
		return true
	}
	if h, _, err := net.SplitHostPort(host); err == nil {
		ok, err := path.Match(pattern, h)
		return err == nil && ok
	}
	return false
}

func isUpgrade(r *http.Request) bool { return hasToken(r.Header, "Upgrade", "websocket") }

func (h *Handler) main(w http.ResponseWriter, r *http.Request) (any, bool) {
	if h.Main == nil {
		return nil, true
	}
	main, err := h.Main(r)
	if err == nil {
		return main, true
	}
	var s *StatusError
	if errors.As(err, &s) {
		http.Error(w, s.Message, s.Code)
	} else {
		http.Error(w, "forbidden", http.StatusForbidden)
	}
	return nil, false
}

func (h *Handler) serveWebSocket(w http.ResponseWriter, r *http.Request) {
	if !h.originAllowed(w, r) {
		http.Error(w, "pages of this origin may not use this endpoint", http.StatusForbidden)
		return
	}
	main, ok := h.main(w, r)
	if !ok {
		return
	}
	protocol := ""
	if h.Protocol != nil {
		protocol = h.Protocol(r)
	}
	conn, br, ok := accept(w, r, protocol)
	if !ok {
		return
	}
	t := newSocket(conn, br, false, messageLimit(h.MaxMessageBytes), pingInterval(h.PingInterval))
	// The request's context ends when the handler returns or the server is closed,
	// not when the client goes away: the session notices that itself.
	opts := append([]capnweb.Option{capnweb.WithContext(context.WithoutCancel(r.Context()))},
		sessionOptions(h.MaxMessageBytes, h.Session)...)
	begin := hold(t)
	s := capnweb.NewSession(t, main, opts...)
	if h.OnSession != nil {
		h.OnSession(r, s)
	}
	begin()
	select {
	case <-s.Done():
	case <-r.Context().Done():
		_ = s.Close(errors.New("the server is shutting down"))
	}
}
