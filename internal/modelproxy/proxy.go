package modelproxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Limits of the proxy.
const (
	// DefaultMaxBody is the most bytes of a request: a long conversation with
	// its images. More is answered with 413.
	DefaultMaxBody = 64 << 20

	// MaxResponseHeader is the most bytes of an answer's headers.
	MaxResponseHeader = 1 << 20

	// MaxInFlight is how many requests may run at once. More are answered with
	// 503, which OpenCode tries again.
	MaxInFlight = 256

	// DefaultHeaderTimeout is how long an upstream may take until it begins to
	// answer. An answer itself may take as long as it likes.
	DefaultHeaderTimeout = 10 * time.Minute
)

// Config is what [New] needs.
type Config struct {
	// Providers are the upstreams. Their IDs differ.
	Providers []Provider

	// Transport sends the requests. Default: [NewTransport](HeaderTimeout).
	Transport http.RoundTripper

	// HeaderTimeout bounds the wait for the beginning of an answer; it is
	// passed to the default transport. Default: DefaultHeaderTimeout.
	HeaderTimeout time.Duration

	// MaxBody is the most bytes of a request. Default: DefaultMaxBody.
	MaxBody int64

	// Logger gets one line per request: provider, method, path, status, bytes,
	// duration. Default: none.
	Logger *slog.Logger
}

// Proxy is the handler. Serve it only where nobody but OpenCode can reach it:
// whoever reaches it can use the keys, though not read them.
type Proxy struct {
	providers map[string]*upstream
	ids       []string
	log       *slog.Logger
	inFlight  atomic.Int64
	transport http.RoundTripper
	maxBody   int64
}

// upstream is a provider with what is derived from it.
type upstream struct {
	Provider
	proxy    *httputil.ReverseProxy
	redactor *redactor
}

// New makes a proxy. It fails if a provider is not valid or an ID occurs twice.
func New(c Config) (*Proxy, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.HeaderTimeout <= 0 {
		c.HeaderTimeout = DefaultHeaderTimeout
	}
	if c.MaxBody <= 0 {
		c.MaxBody = DefaultMaxBody
	}
	if c.Transport == nil {
		c.Transport = NewTransport(c.HeaderTimeout)
	}
	p := &Proxy{providers: map[string]*upstream{}, log: c.Logger, transport: c.Transport, maxBody: c.MaxBody}
	for _, pr := range c.Providers {
		if err := pr.Validate(); err != nil {
			return nil, err
		}
		if p.providers[pr.ID] != nil {
			return nil, fmt.Errorf("model provider %q is there twice", pr.ID)
		}
		up := &upstream{Provider: pr, redactor: newRedactor(pr)}
		up.proxy = &httputil.ReverseProxy{
			Transport:      c.Transport,
			FlushInterval:  -1, // each piece of an answer goes on at once
			Rewrite:        up.rewrite,
			ModifyResponse: up.clean,
			ErrorHandler:   p.failed,
			ErrorLog:       slog.NewLogLogger(c.Logger.Handler(), slog.LevelDebug),
		}
		p.providers[pr.ID] = up
		p.ids = append(p.ids, pr.ID)
	}
	slices.Sort(p.ids)
	return p, nil
}

// NewTransport returns a transport with the host's certificate authorities and
// HTTPS_PROXY, HTTP_PROXY and NO_PROXY of this process. It bounds how long a
// connection and the beginning of an answer may take, and nothing else.
func NewTransport(headerTimeout time.Duration) *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    15 * time.Second,
		ResponseHeaderTimeout:  headerTimeout,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: MaxResponseHeader,
		MaxIdleConnsPerHost:    16,
		IdleConnTimeout:        90 * time.Second,
		DisableCompression:     true, // what is compressed could not be looked through for keys
	}
}

// Close closes the idle connections to the upstreams. Requests under way go on.
func (p *Proxy) Close() {
	if t, ok := p.transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// ServeHTTP passes one request on.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	rec := &recorder{ResponseWriter: w}
	id, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	defer func() {
		// net/http's abort of a broken answer passes through here, too.
		p.log.Info("model request", "provider", limit(id, 64), "method", limit(r.Method, 16), "path", limit("/"+rest, 200),
			"status", rec.status, "bytes", rec.bytes, "duration", time.Since(start))
	}()
	if n := p.inFlight.Add(1); n > MaxInFlight {
		p.inFlight.Add(-1)
		rec.Header().Set("Retry-After", "1")
		refuse(rec, http.StatusServiceUnavailable, "TOO_MANY_REQUESTS", fmt.Sprintf("more than %d requests to models at once", MaxInFlight))
		return
	}
	defer p.inFlight.Add(-1)

	escaped := r.URL.EscapedPath()
	_, escapedRest, hasRest := strings.Cut(strings.TrimPrefix(escaped, "/"), "/")
	up := p.providers[id]
	switch {
	case r.URL.Host != "" || r.Method == http.MethodConnect:
		refuse(rec, http.StatusBadRequest, "BAD_REQUEST", "this is no forward proxy: send the path /<provider>/<rest> only")
	case badPath(escaped):
		refuse(rec, http.StatusBadRequest, "BAD_PATH", "the path has dots, empty parts or encoded separators in it")
	case up == nil:
		refuse(rec, http.StatusNotFound, "UNKNOWN_PROVIDER", fmt.Sprintf("no model provider %q is configured here (configured: %s)", limit(id, 64), strings.Join(p.ids, ", ")))
	case !hasRest || escapedRest == "":
		refuse(rec, http.StatusNotFound, "BAD_PATH", "the path ends after the provider")
	case r.Method != http.MethodPost && r.Method != http.MethodGet:
		rec.Header().Set("Allow", "GET, POST")
		refuse(rec, http.StatusMethodNotAllowed, "BAD_METHOD", "only GET and POST are passed on")
	case r.Header.Get("Upgrade") != "":
		refuse(rec, http.StatusBadRequest, "UPGRADE_REFUSED", "WebSockets and other upgrades are not passed on")
	case r.ContentLength > p.maxBody:
		refuseBody(rec, &http.MaxBytesError{Limit: p.maxBody})
	default:
		r.Body = http.MaxBytesReader(rec, r.Body, p.maxBody)
		up.serve(rec, r, escapedRest)
	}
}

// target is what serve hands to rewrite.
type target struct {
	rest    string // escaped
	headers map[string]Secret
}

type targetKey struct{}

// serve passes a request on whose form was checked.
func (up *upstream) serve(w http.ResponseWriter, r *http.Request, rest string) {
	t := target{rest: rest}
	if len(up.ModelHeaders) > 0 {
		model, err := requestModel(r, rest)
		if err != nil {
			refuseBody(w, err)
			return
		}
		t.headers = up.ModelHeaders[model]
	}
	up.proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), targetKey{}, t)))
}

// failed words an error of the way to the upstream.
func (p *Proxy) failed(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		// The client is gone; nobody reads this.
		w.WriteHeader(499)
		return
	}
	host := r.URL.Host
	var big *http.MaxBytesError
	var timeout net.Error
	var redirect *redirectError
	switch {
	case errors.As(err, &big):
		refuseBody(w, err)
	case errors.As(err, &redirect):
		// Not a 5xx: trying again does not help.
		refuse(w, http.StatusBadRequest, "UPSTREAM_REDIRECTS", fmt.Sprintf("the model provider at %s redirects to %s: that is not followed, since the key would go with it; set its base URL to where it really is", host, redirect.to))
	case errors.As(err, &timeout) && timeout.Timeout():
		refuse(w, http.StatusGatewayTimeout, "UPSTREAM_TIMEOUT", fmt.Sprintf("the model provider at %s did not answer in time", host))
	default:
		p.log.Warn("model provider not reached", "host", host, "error", err)
		refuse(w, http.StatusBadGateway, "UPSTREAM_UNREACHABLE", fmt.Sprintf("the model provider at %s cannot be reached: check the network and HTTPS_PROXY of the host (%s)", host, reason(err)))
	}
}

// recorder remembers what was answered.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (r *recorder) WriteHeader(code int) {
	if r.status == 0 && code >= 200 {
		r.status = code
	}
	r.ResponseWriter.WriteHeader(code)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach Flush.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func limit(s string, n int) string {
	if len(s) > n {
		return strings.ToValidUTF8(s[:n], "") + "…"
	}
	return s
}
