package modelproxy

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// redirectError is an answer that sends the client elsewhere.
type redirectError struct{ to string }

func (e *redirectError) Error() string { return "redirected to " + e.to }

// clean makes an answer of an upstream one for the client.
func (up *upstream) clean(resp *http.Response) error {
	if resp.StatusCode >= 300 && resp.StatusCode < 400 && resp.StatusCode != http.StatusNotModified {
		to := "nowhere"
		if u, err := url.Parse(resp.Header.Get("Location")); err == nil {
			to = resp.Request.URL.ResolveReference(u).Host
		}
		return &redirectError{to}
	}
	for _, name := range []string{"Set-Cookie", "Alt-Svc", "Strict-Transport-Security", "Access-Control-Allow-Origin", "Access-Control-Allow-Credentials"} {
		resp.Header.Del(name)
	}
	if up.redactor == nil {
		return nil
	}
	for name, values := range resp.Header {
		for i, v := range values {
			values[i] = up.redactor.text(v)
		}
		resp.Header[name] = values
	}
	// A redaction changes the length, so that it cannot be promised.
	if up.redactor.changesLength() {
		resp.Header.Del("Content-Length")
		resp.ContentLength = -1
	}
	resp.Body = up.redactor.reader(resp.Body)
	return nil
}

// redactor replaces the credentials of a provider in what it answers: some
// echo the request in an error.
type redactor struct {
	secrets [][]byte // longest first
}

// minRedacted is the length of the shortest credential that is looked for: a
// short one, like the "public" of a keyless provider, is a word of the language.
const minRedacted = 8

// newRedactor returns nil if there is nothing to look for.
func newRedactor(p Provider) *redactor {
	r := &redactor{}
	add := func(s Secret) {
		text := s.Reveal()
		if _, after, ok := strings.Cut(text, " "); ok { // "Bearer …"
			text = strings.TrimSpace(after)
		}
		if len(text) >= minRedacted {
			r.secrets = append(r.secrets, []byte(text))
		}
	}
	add(p.Key)
	sets := []map[string]Secret{p.Headers}
	for _, m := range p.ModelHeaders {
		sets = append(sets, m)
	}
	for _, set := range sets {
		for name, v := range set {
			if soundsSecret(name) {
				add(v)
			}
		}
	}
	slices.SortFunc(r.secrets, func(a, b []byte) int { return len(b) - len(a) })
	if len(r.secrets) == 0 {
		return nil
	}
	return r
}

// soundsSecret tells by the name of a header whether its value is a credential.
func soundsSecret(name string) bool {
	name = strings.ToLower(name)
	for _, word := range []string{"auth", "key", "token", "secret", "cookie", "password", "credential"} {
		if strings.Contains(name, word) {
			return true
		}
	}
	return false
}

func (r *redactor) changesLength() bool {
	return slices.ContainsFunc(r.secrets, func(s []byte) bool { return len(s) != len(redacted) })
}

func (r *redactor) text(s string) string {
	for _, secret := range r.secrets {
		s = strings.ReplaceAll(s, string(secret), redacted)
	}
	return s
}

func (r *redactor) reader(body io.ReadCloser) io.ReadCloser {
	return &redactingReader{r: r, body: body, buf: make([]byte, 16<<10)}
}

// redactingReader passes on what it reads at once, but for an end that could
// be the beginning of a credential.
type redactingReader struct {
	r    *redactor
	body io.ReadCloser
	buf  []byte
	held []byte // read, and not looked through to its end
	out  []byte // looked through
	err  error
}

func (d *redactingReader) Read(p []byte) (int, error) {
	for len(d.out) == 0 {
		if d.err != nil {
			return 0, d.err
		}
		n, err := d.body.Read(d.buf)
		d.held = append(d.held, d.buf[:n]...)
		d.err = err
		d.scan(err != nil)
	}
	n := copy(p, d.out)
	d.out = d.out[n:]
	return n, nil
}

// scan moves what is sure from held to out.
func (d *redactingReader) scan(last bool) {
	for _, s := range d.r.secrets {
		d.held = bytes.ReplaceAll(d.held, s, []byte(redacted))
	}
	keep := 0
	if !last {
		for _, s := range d.r.secrets {
			for n := min(len(s)-1, len(d.held)); n > keep; n-- {
				if bytes.HasSuffix(d.held, s[:n]) {
					keep = n
					break
				}
			}
		}
	}
	cut := len(d.held) - keep
	d.out = append(d.out[:0:0], d.held[:cut]...)
	d.held = append(d.held[:0], d.held[cut:]...)
}

func (d *redactingReader) Close() error { return d.body.Close() }
