package preview

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"

	"github.com/tongs-dev/tongs/sandbox"
)

// passage is what the proxy must know of a request, carried in its context.
type passage struct {
	target
	host string
	err  error // set when the sandbox failed
}

type passageKey struct{}

func (h *Handler) newProxy() *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite:        h.rewrite,
		Transport:      h.pool.transport,
		FlushInterval:  -1,
		ModifyResponse: modify,
		ErrorHandler:   failed,
		ErrorLog:       slog.NewLogLogger(h.log.Handler(), slog.LevelDebug),
	}
}

func (h *Handler) rewrite(pr *httputil.ProxyRequest) {
	p := pr.In.Context().Value(passageKey{}).(*passage)
	out := pr.Out
	out.URL.Scheme, out.URL.Host = "http", p.address()
	out.URL.RawQuery = pr.In.URL.RawQuery // as it came: it is the guest's to read
	out.Host = p.host
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Prefix", "X-Real-Ip"} {
		out.Header.Del(name)
	}
	pr.SetXForwarded()
	if h.cfg.Scheme == "https" {
		out.Header.Set("X-Forwarded-Proto", "https")
	}
	out.Header.Set("X-Sandbox-Name", p.sandbox)
	if _, has := out.Header["User-Agent"]; !has {
		out.Header.Set("User-Agent", "") // that there is none passes too
	}
	h.stripCredentials(out)
}

// stripCredentials takes the front's own password away, wherever the front itself
// would read it. What else is there is the guest's.
func (h *Handler) stripCredentials(out *http.Request) {
	if h.cfg.Password == "" {
		return
	}
	if _, password, ok := out.BasicAuth(); ok && same(password, h.cfg.Password) {
		out.Header.Del("Authorization")
	}
	if strings.Contains(out.URL.RawQuery, "auth_token") {
		out.URL.RawQuery = h.stripQuery(out.URL.RawQuery)
	}
}

func (h *Handler) stripQuery(query string) string {
	var kept []string
	for pair := range strings.SplitSeq(query, "&") {
		key, value, _ := strings.Cut(pair, "=")
		if k, err := url.QueryUnescape(key); err == nil && k == "auth_token" {
			if v, err := url.QueryUnescape(value); err == nil {
				raw, err := base64.StdEncoding.DecodeString(v)
				if err != nil {
					raw, _ = base64.RawURLEncoding.DecodeString(v)
				}
				if _, password, ok := strings.Cut(string(raw), ":"); ok && same(password, h.cfg.Password) {
					continue
				}
			}
		}
		kept = append(kept, pair)
	}
	return strings.Join(kept, "&")
}

// same compares in a time that depends on neither content nor length.
func same(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// modify takes away what a guest's answer could do to other origins than its own.
func modify(resp *http.Response) error {
	cookies := resp.Header["Set-Cookie"]
	for i, c := range cookies {
		cookies[i] = hostOnly(c)
	}
	resp.Header.Del("Alt-Svc")
	return nil
}

// hostOnly removes the Domain of a cookie (RFC 6265 §5.2.3), with which it would be
// sent to the front and to other previews.
func hostOnly(cookie string) string {
	parts := strings.Split(cookie, ";")
	kept := parts[:1]
	for _, p := range parts[1:] {
		key, _, _ := strings.Cut(p, "=")
		if !strings.EqualFold(strings.TrimSpace(key), "domain") {
			kept = append(kept, p)
		}
	}
	return strings.Join(kept, ";")
}

// failed answers for a sandbox that did not.
func failed(w http.ResponseWriter, r *http.Request, err error) {
	p := r.Context().Value(passageKey{}).(*passage)
	p.err = err
	var e *sandbox.Error
	switch {
	case errors.As(err, &e):
	case errors.Is(err, context.Canceled):
		return // the browser has gone
	default:
		e = &sandbox.Error{Code: sandbox.CodeServiceNotResponding, Op: "preview", Message: "the server in the sandbox broke the connection off, or did not speak HTTP", Hint: "look at its output", Err: err}
	}
	writeRefusal(w, r, e)
}
