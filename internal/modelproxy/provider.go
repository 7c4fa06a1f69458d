package modelproxy

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
)

// Placeholder is the key that OpenCode holds instead of a real one.
const Placeholder = "tongs-placeholder"

// AuthScheme says in which header a protocol expects the key.
type AuthScheme int

const (
	// Bearer is "Authorization: Bearer <key>": OpenAI's protocols and most others.
	Bearer AuthScheme = iota
	// XAPIKey is "x-api-key: <key>": Anthropic's Messages API.
	XAPIKey
	// XGoogAPIKey is "x-goog-api-key: <key>": Google's Gemini API.
	XGoogAPIKey
	// ByPath is for a base URL under which several protocols are spoken: the
	// last part of the path tells which. ".../messages" is Anthropic's,
	// ".../models/<model>:<method>" is Google's, all else is OpenAI's.
	ByPath
)

// String returns the name of the header.
func (a AuthScheme) String() string {
	switch a {
	case XAPIKey:
		return "x-api-key"
	case XGoogAPIKey:
		return "x-goog-api-key"
	case ByPath:
		return "by path"
	default:
		return "authorization"
	}
}

// set puts the key into the header for a request to path.
func (a AuthScheme) set(h http.Header, path string, key Secret) {
	if a == ByPath {
		last := path[strings.LastIndexByte(path, '/')+1:]
		switch {
		case last == "messages", strings.HasSuffix(path, "/messages/count_tokens"):
			a = XAPIKey
		case strings.Contains(path, "/models/") && strings.Contains(last, ":"):
			a = XGoogAPIKey
		}
	}
	switch a {
	case XAPIKey:
		h.Set("X-Api-Key", key.Reveal())
	case XGoogAPIKey:
		h.Set("X-Goog-Api-Key", key.Reveal())
	default:
		h.Set("Authorization", "Bearer "+key.Reveal())
	}
}

// Provider is one upstream of the proxy.
type Provider struct {
	// ID is the first part of the path: letters, digits, ".", "_", "-", at most
	// 64 bytes.
	ID string

	// Upstream is the base URL that the rest of the path is added to, e.g.
	// https://api.openai.com/v1. It has no query and no user.
	Upstream *url.URL

	// Key is sent in the header of Auth. Empty: no credential is sent at all
	// (a server of one's own that wants none).
	Key Secret

	// Auth is how Key is sent.
	Auth AuthScheme

	// Headers are set on each request, over what the client sent. They may hold
	// credentials of their own.
	Headers map[string]Secret

	// ModelHeaders are set, over Headers, on requests for one model. The model
	// is what the body's "model" says, or what follows "/models/" in the path.
	ModelHeaders map[string]map[string]Secret

	// Operator marks an upstream that the operator configured. Only such a one
	// may be http or lie on a loopback, private or link-local address.
	Operator bool
}

var providerID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// ValidID tells whether a string can be the ID of a provider.
func ValidID(id string) bool { return providerID.MatchString(id) }

// Validate tells what is wrong with a provider, nil if nothing is. No secret
// and no user part of a URL is in the error.
func (p Provider) Validate() error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("model provider %q: %s", p.ID, fmt.Sprintf(format, args...))
	}
	u := p.Upstream
	switch {
	case !ValidID(p.ID):
		return fail("the id may have letters, digits, '.', '_' and '-' only, and at most 64 of them")
	case u == nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return fail("the base URL must be an http or https URL")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return fail("the base URL must have no user, query or fragment")
	case badPath(u.EscapedPath()):
		return fail("the base URL has dots or encoded separators in its path")
	}
	if !p.Operator {
		if u.Scheme != "https" {
			return fail("the base URL must be https")
		}
		if isLocal(u.Hostname()) {
			return fail("the base URL must not be on this machine or a private network")
		}
	}
	for name, v := range p.Headers {
		if err := validHeader(name, v); err != nil {
			return fail("%v", err)
		}
	}
	for model, hs := range p.ModelHeaders {
		for name, v := range hs {
			if err := validHeader(name, v); err != nil {
				return fail("model %q: %v", model, err)
			}
		}
	}
	if strings.ContainsAny(p.Key.Reveal(), "\r\n\x00") {
		return fail("the key has a line break in it")
	}
	return nil
}

var headerName = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$")

// forbiddenHeaders are of the connection and not of the request.
var forbiddenHeaders = map[string]bool{
	"Host": true, "Connection": true, "Content-Length": true, "Transfer-Encoding": true, "Te": true,
	"Trailer": true, "Upgrade": true, "Keep-Alive": true, "Proxy-Connection": true, "Expect": true,
}

func validHeader(name string, v Secret) error {
	switch {
	case !headerName.MatchString(name):
		return fmt.Errorf("%q is no header name", name)
	case forbiddenHeaders[http.CanonicalHeaderKey(name)]:
		return fmt.Errorf("the header %s cannot be set", name)
	case strings.ContainsAny(v.Reveal(), "\r\n\x00"):
		return fmt.Errorf("the value of the header %s has a line break in it", name)
	}
	return nil
}

// isLocal tells whether a host name or address is plainly not on the internet.
func isLocal(host string) bool {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	a = a.Unmap()
	return a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() || a.IsUnspecified() || a.IsMulticast()
}
