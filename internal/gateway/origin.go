package gateway

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// checkOrigin refuses a Host that is not ours (a name that somebody else's DNS leads
// here) and requests that pages of other origins make.
func (g *gateway) checkOrigin(r *http.Request) *Error {
	if !g.knownHost(r) {
		return &Error{Status: 403, Code: "FOREIGN_HOST", Message: "the Host header names a host that this server is not known by", Hint: "call it by localhost, or add the name to its configuration"}
	}
	foreign := &Error{Status: 403, Code: "FOREIGN_ORIGIN", Message: "the request comes from a page of another origin", Hint: "open the page from this server itself"}
	if len(r.Header.Values("Origin")) > 1 {
		return foreign
	}
	if origin := r.Header.Get("Origin"); origin != "" {
		u, err := url.Parse(origin)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || !strings.EqualFold(u.Host, r.Host) {
			return foreign
		}
	}
	// A browser says so even where it sends no Origin, as for images and scripts.
	// A person may still follow a link to the page.
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return nil
	}
	if r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document" {
		return nil
	}
	return foreign
}

func (g *gateway) knownHost(r *http.Request) bool {
	host := r.Host
	if h, port, err := net.SplitHostPort(host); err == nil {
		if port == "" || strings.Trim(port, "0123456789") != "" {
			return false
		}
		host = h
	} else {
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "localhost" || slices.Contains(g.cfg.Hosts, host) {
		return true
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || ip.Zone() != "" {
		return false
	}
	if ip == netip.AddrFrom4([4]byte{127, 0, 0, 1}) || ip == netip.IPv6Loopback() {
		return true
	}
	// An address cannot be led astray by DNS: it is ours if the connection came to it.
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return false
	}
	at, err := netip.ParseAddrPort(local.String())
	return err == nil && at.Addr().Unmap().WithZone("") == ip.Unmap()
}

// checkPassword asks for the password as OpenCode does: Basic authorization, or the
// same text in the query (auth_token), for what cannot set a header.
func (g *gateway) checkPassword(w http.ResponseWriter, r *http.Request) *Error {
	if g.cfg.Password == "" || g.cfg.Ticket != nil && g.cfg.Ticket(r) {
		return nil
	}
	user, password, ok := r.BasicAuth()
	if !ok {
		if token := r.URL.Query().Get("auth_token"); token != "" {
			raw, err := base64.StdEncoding.DecodeString(token)
			if err != nil {
				raw, _ = base64.RawURLEncoding.DecodeString(token) // empty when it is neither
			}
			user, password, _ = strings.Cut(string(raw), ":")
		}
	}
	if same(user, g.cfg.Username)&same(password, g.cfg.Password) == 1 {
		return nil
	}
	w.Header().Set("WWW-Authenticate", `Basic realm="Tongs", charset="UTF-8"`)
	return &Error{Status: 401, Code: "UNAUTHORIZED", Message: "the password is missing or wrong", Hint: "give clients the password with --password or OPENCODE_SERVER_PASSWORD"}
}

// same compares in a time that depends on neither content nor length.
func same(a, b string) int {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:])
}

// isLoopback says whether a listen host is reached from this machine alone.
func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// setHeaders sets what every response has. OpenCode's own CORS headers are removed
// where its responses pass.
func (g *gateway) setHeaders(h http.Header, r *http.Request) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin") // tells us which session the page shows
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Add("Vary", "Origin")
}

// navigates says that a browser opens a page, and no script asks for data.
func navigates(r *http.Request) bool {
	mode := r.Header.Get("Sec-Fetch-Mode")
	return strings.Contains(r.Header.Get("Accept"), "text/html") && (mode == "" || mode == "navigate")
}

func isUpgrade(r *http.Request) bool { return r.Header.Get("Upgrade") != "" }
