package modelproxy

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// clientAuth are the headers in which an SDK, or whoever else reaches the
// proxy, may send a credential or where it is.
var clientAuth = []string{
	"Authorization", "Proxy-Authorization", "X-Api-Key", "X-Goog-Api-Key", "Api-Key", "Apikey", "X-Auth-Token", "X-Access-Token",
	"Ocp-Apim-Subscription-Key", "X-Goog-User-Project", "Cookie", "Cookie2",
	"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Origin", "Referer",
	"Accept-Encoding",
}

// queryAuth are the parameters in which a credential may be.
var queryAuth = map[string]bool{
	"key": true, "api_key": true, "api-key": true, "apikey": true, "access_token": true, "auth_token": true, "token": true, "subscription-key": true,
}

// rewrite makes the request for the upstream: ReverseProxy has removed what
// belongs to the connection.
func (up *upstream) rewrite(pr *httputil.ProxyRequest) {
	t, _ := pr.In.Context().Value(targetKey{}).(target)
	out := pr.Out
	for _, name := range clientAuth {
		out.Header.Del(name)
	}
	for name, values := range out.Header {
		for _, v := range values {
			if strings.Contains(v, Placeholder) {
				out.Header.Del(name)
			}
		}
	}
	query := out.URL.Query()
	for name, values := range query {
		if queryAuth[strings.ToLower(name)] || strings.Contains(strings.Join(values, " "), Placeholder) {
			query.Del(name)
		}
	}
	u := *up.Upstream
	u.RawPath = strings.TrimSuffix(u.EscapedPath(), "/") + "/" + t.rest
	u.Path, _ = url.PathUnescape(u.RawPath) // badPath has refused what does not decode
	u.RawQuery = query.Encode()
	out.URL = &u
	out.Host = u.Host
	out.Trailer = nil

	for _, set := range []map[string]Secret{up.Headers, t.headers} {
		for name, v := range set {
			out.Header.Set(name, v.Reveal())
		}
	}
	if !up.Key.IsZero() {
		up.Auth.set(out.Header, u.Path, up.Key)
	}
}

// badPath tells whether an escaped path could mean another one to somebody
// else: dot segments, empty ones, and separators, dots, percent signs or
// control characters that are encoded.
func badPath(escaped string) bool {
	if _, err := url.PathUnescape(escaped); err != nil {
		return true
	}
	for part := range strings.SplitSeq(escaped, "/") {
		if part == "." || part == ".." || strings.ContainsAny(part, "\\;") {
			return true
		}
		for j := 0; j+2 < len(part); j++ {
			if part[j] != '%' {
				continue
			}
			switch hex := strings.ToLower(part[j+1 : j+3]); {
			case hex == "2f", hex == "5c", hex == "2e", hex == "25", hex == "3b", hex == "7f", hex < "20":
				return true
			}
		}
	}
	return strings.Contains(escaped, "//")
}

// requestModel finds out which model a request is for: from the path of
// Google's API, else from the body, of which only as much is read as comes
// before the answer. The body can be read again afterwards. No model is no
// error.
func requestModel(r *http.Request, rest string) (string, error) {
	if plain, err := url.PathUnescape(rest); err == nil {
		if _, after, ok := strings.Cut("/"+plain, "/models/"); ok {
			if i := strings.LastIndexByte(after, ':'); i > 0 {
				return after[:i], nil
			}
			return after, nil
		}
	}
	if r.Method != http.MethodPost || r.Body == nil {
		return "", nil
	}
	var seen bytes.Buffer
	model, err := bodyModel(io.TeeReader(r.Body, &seen))
	body := r.Body
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(&seen, body), body}
	var big *http.MaxBytesError
	if errors.As(err, &big) {
		return "", err
	}
	return model, nil // what is not JSON goes on as it is: the upstream will say so
}

// bodyModel returns the member "model" of a JSON object.
func bodyModel(r io.Reader) (string, error) {
	dec := jsontext.NewDecoder(r)
	if tok, err := dec.ReadToken(); err != nil || tok.Kind() != '{' {
		return "", err
	}
	for {
		name, err := dec.ReadToken()
		if err != nil || name.Kind() != '"' {
			return "", err
		}
		if name.String() != "model" {
			if err := dec.SkipValue(); err != nil {
				return "", err
			}
			continue
		}
		v, err := dec.ReadToken()
		if err != nil || v.Kind() != '"' {
			return "", err
		}
		return v.String(), nil
	}
}
