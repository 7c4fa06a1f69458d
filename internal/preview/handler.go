package preview

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

// Bounds.
const (
	MaxConnections    = 256             // to one sandbox at a time
	MaxResponseHeader = 256 << 10       // bytes
	IdleConnection    = time.Hour       // without a byte in either direction
	MaxExposures      = 64              // of one sandbox
	idlePooled        = 1 * time.Minute // a connection between two requests
)

// Boxes reaches sandboxes.
type Boxes interface {
	// Dial connects to a port of a sandbox that is there; it makes none. The
	// sandbox is named by what a URL can say: see Label. The connection's
	// other half can be closed alone where the sandbox's server can.
	// Errors: CodeSandboxNotFound; CodeServiceNotResponding when nothing
	// listens there; any other *sandbox.Error is shown as it is.
	Dial(ctx context.Context, sandbox string, port int) (net.Conn, error)
}

// Config says what is served. Boxes and Listen are needed.
type Config struct {
	Boxes Boxes
	// Listen is the address of the front, host:port. Its port is in the URLs.
	Listen string
	// Domain is a name whose subdomains lead to the front, besides
	// "localhost". URLs have it when it is set.
	Domain string
	// Scheme of the URLs: "http", the default, or "https" when something in
	// front of the front speaks TLS; URLs then name no port.
	Scheme string
	// Open: the front is reached from this machine alone and has no password,
	// so that no token is asked for.
	Open bool
	// Password is the front's own, which no guest may see.
	Password string
	// File keeps the exposures, mode 0600. Empty: they end with the process.
	File string
	// Reserved ports of every sandbox are the host's own listeners, and are
	// not served.
	Reserved []int
	// Logger gets a record per request (debug), without query, headers or
	// token. Nil discards them.
	Logger *slog.Logger
}

// Handler serves previews. It is safe for use by many goroutines.
type Handler struct {
	cfg     Config
	domains []string
	port    string
	log     *slog.Logger
	pool    *pool
	proxy   *httputil.ReverseProxy
	exposed *exposures
}

// New checks the configuration and reads the exposures. The error is a
// *sandbox.Error.
func New(cfg Config) (*Handler, error) {
	const op = "set up previews"
	if cfg.Boxes == nil {
		return nil, sandbox.Errf(sandbox.CodeInvalidArgument, op, "there are no sandboxes to show", "set Config.Boxes")
	}
	_, port, err := net.SplitHostPort(cfg.Listen)
	if err != nil {
		return nil, sandbox.Errf(sandbox.CodeInvalidArgument, op, fmt.Sprintf("the listen address %.80q is not host:port", cfg.Listen), "use an address such as 127.0.0.1:8787")
	}
	switch cfg.Scheme {
	case "":
		cfg.Scheme = "http"
	case "http", "https":
	default:
		return nil, sandbox.Errf(sandbox.CodeInvalidArgument, op, fmt.Sprintf("the scheme %.20q is neither http nor https", cfg.Scheme), "")
	}
	domains := []string{"localhost"}
	if cfg.Domain != "" {
		domain := strings.ToLower(strings.Trim(cfg.Domain, "."))
		for label := range strings.SplitSeq(domain, ".") {
			if !isLabel(label) || len(label) > maxLabel {
				return nil, sandbox.Errf(sandbox.CodeInvalidArgument, op, fmt.Sprintf("%.80q is not a domain name", cfg.Domain), "use a name such as preview.example.com, without a scheme, port or *")
			}
		}
		domains = append(domains, domain)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	exposed, err := loadExposures(cfg.File)
	if err != nil {
		return nil, err
	}
	h := &Handler{cfg: cfg, domains: domains, port: port, log: cfg.Logger, pool: newPool(cfg.Boxes), exposed: exposed}
	h.proxy = h.newProxy()
	return h, nil
}

// Owns says whether a Host header is one of a preview.
func (h *Handler) Owns(host string) bool {
	_, ok := parseHost(host, h.domains)
	return ok
}

// Close ends the connections that wait for a next request. Requests that are under
// way go on.
func (h *Handler) Close() { h.pool.transport.CloseIdleConnections() }

// ServeHTTP serves a request whose Host it owns.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	to, refusal := h.admit(r)
	if refusal != nil {
		h.log.InfoContext(r.Context(), "preview refused", "method", r.Method, "code", refusal.Code)
		writeRefusal(w, r, refusal)
		return
	}
	// A server may answer before it has read the whole request, and go on with both.
	_ = http.NewResponseController(w).EnableFullDuplex()
	p := &passage{target: to, host: r.Host}
	h.proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), passageKey{}, p)))
	facts := []any{"method", r.Method, "sandbox", to.sandbox, "port", to.port, "duration", time.Since(began)}
	if p.err != nil {
		facts = append(facts, "code", sandbox.CodeOf(p.err), "cause", p.err)
	}
	h.log.DebugContext(r.Context(), "preview", facts...)
}

// target is where a request goes.
type target struct {
	sandbox string
	port    int
}

func (t target) address() string { return t.sandbox + ":" + strconv.Itoa(t.port) }

// admit decides whether a request may pass, and where to.
func (h *Handler) admit(r *http.Request) (target, *sandbox.Error) {
	const op = "preview"
	n, ok := parseHost(r.Host, h.domains)
	if !ok {
		return target{}, sandbox.Errf(sandbox.CodeInvalidArgument, op, "this host name is no preview's", "use http://<port>-<sandbox>.localhost")
	}
	to, ok := target{sandbox: n.rest, port: n.port}, h.cfg.Open
	if box, token, has := n.split(); has && h.exposed.valid(box, n.port, token) {
		to.sandbox, ok = box, true
	}
	switch {
	case !ok:
		// Which of the three parts is wrong is nobody's business.
		return to, &sandbox.Error{Code: CodeNotExposed, Op: op, Message: "no port is exposed under this name", Hint: "expose the port, and use the whole URL that comes back; it may have been revoked"}
	case slices.Contains(h.cfg.Reserved, to.port):
		return to, sandbox.Errf(sandbox.CodeInvalidPort, op, "port "+strconv.Itoa(to.port)+" belongs to the sandbox's host", "listen on another port")
	case !h.ownPage(r, to.sandbox):
		return to, sandbox.Errf(CodeForeignOrigin, op, "the request comes from a page of another origin", "open the preview itself, or serve both from the same sandbox")
	}
	return to, nil
}

// ownPage refuses what a page of another origin asks for behind the back of whoever
// looks at it. A page of another port of the same sandbox may ask; anybody may
// follow a link.
func (h *Handler) ownPage(r *http.Request, box string) bool {
	if values := r.Header.Values("Origin"); len(values) > 0 {
		if len(values) > 1 {
			return false
		}
		u, err := url.Parse(values[0])
		if err != nil || u.Scheme != "http" && u.Scheme != "https" {
			return false
		}
		if strings.EqualFold(u.Host, r.Host) {
			return true
		}
		n, ok := parseHost(u.Host, h.domains)
		if !ok {
			return false
		}
		if n.rest == box && h.cfg.Open {
			return true
		}
		other, token, has := n.split()
		return has && other == box && h.exposed.valid(other, n.port, token)
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return true
	}
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && r.Header.Get("Sec-Fetch-Mode") == "navigate"
}

// URL is where a port of a sandbox is served without having been exposed; false
// when the front isn't open.
func (h *Handler) URL(box string, port int) (string, bool) {
	if !h.cfg.Open {
		return "", false
	}
	return h.url(strconv.Itoa(port) + "-" + Label(box)), true
}

func (h *Handler) url(label string) string {
	domain := h.domains[len(h.domains)-1]
	if h.cfg.Scheme == "https" {
		return "https://" + label + "." + domain
	}
	return "http://" + net.JoinHostPort(label+"."+domain, h.port)
}
