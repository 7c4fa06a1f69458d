package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
)

// passage is what the proxy must know of a request, carried in its context.
type passage struct {
	route *route
	in    *http.Request
	hold  *hold
	err   *Error // set when the upstream failed
}

type passageKey struct{}

// forward passes a request to OpenCode.
func (g *gateway) forward(w http.ResponseWriter, r *http.Request, rt *route) *Error {
	p := &passage{route: rt, in: r}
	body, notes, err := g.takeBody(w, r, rt)
	if err != nil {
		return err
	}
	if rt.hold && !notes.noReply {
		p.hold = g.streams.begin(r.PathValue("sessionID"), r)
		defer p.hold.end()
	}
	if rt.command && g.cfg.Command != nil {
		defer g.cfg.Command(r.PathValue("sessionID"))()
	}
	out := r.WithContext(context.WithValue(r.Context(), passageKey{}, p))
	out.Body, out.ContentLength, out.TransferEncoding = http.NoBody, 0, nil
	if body != nil {
		out.Body, out.ContentLength = body, body.size
		if raw := body.raw; raw != nil { // lets the transport try another connection
			out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(raw)), nil }
		}
	}
	g.proxy.ServeHTTP(w, out)
	return p.err
}

func (g *gateway) newProxy() *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite:        g.rewrite,
		Transport:      g.cfg.Upstream,
		FlushInterval:  -1,
		ModifyResponse: g.modify,
		ErrorHandler:   g.upstreamFailed,
		ErrorLog:       slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
	}
}

// upstreamHeaders are those of a client that OpenCode has a use for; no other one
// reaches it, nor any that proxies in front of us may have added.
var upstreamHeaders = []string{
	"Accept", "Accept-Encoding", "Accept-Language", "Cache-Control", "Content-Type", "If-Modified-Since",
	"If-None-Match", "Last-Event-Id", "Range", "User-Agent",
	"Upgrade", "Connection", "Sec-Websocket-Key", "Sec-Websocket-Version", "Sec-Websocket-Protocol", "Sec-Websocket-Extensions",
}

func (g *gateway) rewrite(pr *httputil.ProxyRequest) {
	p := pr.In.Context().Value(passageKey{}).(*passage)
	out := pr.Out
	out.Host = g.cfg.UpstreamHost
	out.URL.Scheme, out.URL.Host, out.URL.User = "http", "opencode", nil
	out.URL.RawPath, out.URL.Fragment = "", ""
	in := out.Header
	out.Header = http.Header{}
	for _, name := range upstreamHeaders {
		if v := in.Values(name); len(v) > 0 {
			out.Header[http.CanonicalHeaderKey(name)] = v
		}
	}
	if out.Header.Get("User-Agent") == "" {
		out.Header.Set("User-Agent", "tongs")
	}
	if p.route.redact || p.route.events || p.route.hold {
		out.Header.Set("Accept-Encoding", "identity") // it is read here
		out.Header.Del("Range")
		out.Header.Del("If-None-Match")
		out.Header.Del("If-Modified-Since")
	}
	if p.route.page {
		out.URL.Path, out.URL.RawQuery = "/", ""
		return
	}
	out.Header.Set("X-Opencode-Directory", url.PathEscape(g.cfg.Directory))
	out.URL.RawQuery = g.query(out.URL.Path, p.in.URL.RawQuery)
}

// query returns the client's query with the one directory in the place of any that
// it names, and without what it shows us or may not choose.
func (g *gateway) query(path, raw string) string {
	q, _ := url.ParseQuery(raw) // pairs that cannot be read are dropped
	named := q.Has("directory")
	for key := range q {
		k := strings.ToLower(key)
		if k == "directory" || k == "workspace" || k == "auth_token" || k == "location" || strings.HasPrefix(k, "location[") ||
			strings.HasPrefix(k, "directory[") || strings.HasPrefix(k, "workspace[") || strings.HasPrefix(k, "location.") {
			q.Del(key)
		}
	}
	if strings.HasPrefix(path, "/api/") {
		q.Set("location[directory]", g.cfg.Directory)
	} else if named {
		q.Set("directory", g.cfg.Directory)
	}
	return q.Encode()
}

// modify takes OpenCode's headers away that are ours to set, and wraps the bodies
// that are looked at on their way.
func (g *gateway) modify(resp *http.Response) error {
	p := resp.Request.Context().Value(passageKey{}).(*passage)
	for name := range resp.Header {
		if strings.HasPrefix(name, "Access-Control-") {
			resp.Header.Del(name)
		}
	}
	for _, name := range []string{"Set-Cookie", "Server", "Vary", "X-Frame-Options", "X-Content-Type-Options", "Referrer-Policy",
		"Cross-Origin-Resource-Policy", "Cross-Origin-Opener-Policy", "Www-Authenticate", "Alt-Svc", "Clear-Site-Data"} {
		resp.Header.Del(name)
	}
	if resp.StatusCode == http.StatusUnauthorized {
		return &Error{Status: 502, Code: "UPSTREAM_AUTH", Message: "OpenCode refused this server's password", Hint: "restart the server"}
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return nil
	}
	read := p.route.redact || p.route.events || p.hold != nil
	if enc := resp.Header.Get("Content-Encoding"); read && enc != "" && enc != "identity" && resp.Request.Method != http.MethodHead {
		return &Error{Status: 502, Code: "UPSTREAM_ENCODING", Message: "OpenCode answered in an encoding that was not asked for", Hint: "report this with the version of OpenCode"}
	}
	switch {
	case p.route.redact:
		for _, name := range []string{"Content-Length", "Etag", "Last-Modified", "Content-Md5", "Digest"} {
			resp.Header.Del(name)
		}
		resp.Header.Set("Cache-Control", "no-store")
		resp.ContentLength = -1
		if resp.Request.Method != http.MethodHead {
			resp.Body = newRedactor(resp.Body)
		}
	case p.route.events:
		body := resp.Body
		if g.cfg.Events != nil {
			body = g.events.splice(body, p.route.pattern == "/global/event")
		}
		resp.Body = g.streams.watch(body, p.in)
	case p.hold != nil && resp.StatusCode < 300:
		resp.Body = &held{ReadCloser: resp.Body, ctx: p.in.Context(), h: p.hold}
	}
	return nil
}

// upstreamFailed keeps the error for forward, which has the writer's shape.
func (g *gateway) upstreamFailed(_ http.ResponseWriter, r *http.Request, err error) {
	p := r.Context().Value(passageKey{}).(*passage)
	var e *Error
	switch {
	case errors.As(err, &e):
		p.err = e
	case p.in.Context().Err() != nil:
		// The client has gone; nobody reads this.
		p.err = &Error{Status: 499, Code: "CLIENT_GONE", Message: "the client went away", Err: err}
	default:
		p.err = &Error{Status: 502, Code: "UPSTREAM_FAILED", Message: "OpenCode did not answer", Hint: "it may be restarting: try again, or look at the server's log", Err: fmt.Errorf("asking OpenCode: %w", err)}
	}
}

// reqBody is a request body that gives its share of the memory back when it is sent.
// The transport may close it while it reads.
type reqBody struct {
	size int64
	raw  []byte // kept for a second try, when it is small
	free func()

	mu   sync.Mutex
	rest *bytes.Reader // nil when closed
}

func newReqBody(raw []byte, free func()) *reqBody {
	b := &reqBody{size: int64(len(raw)), free: free, rest: bytes.NewReader(raw)}
	if len(raw) <= maxBody {
		b.raw = raw
	}
	return b
}

func (b *reqBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rest == nil {
		return 0, http.ErrBodyReadAfterClose
	}
	return b.rest.Read(p)
}

func (b *reqBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rest != nil {
		b.rest = nil
		b.free()
	}
	return nil
}
