package gateway

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// maxRedacted bounds a response that is searched; those of 4 MB are usual.
const maxRedacted = 64 << 20

// redacted stands in a response where a secret was.
const redacted = "redacted"

// secrets are the names of JSON members whose texts do not leave, written without
// case, dashes and underscores. Under such a name, every text is one, however deep: headers are objects.
var secrets = map[string]bool{
	"key": true, "apikey": true, "xapikey": true, "xgoogapikey": true, "authorization": true, "proxyauthorization": true, "cookie": true,
	"token": true, "authtoken": true, "accesstoken": true, "refreshtoken": true, "sessiontoken": true, "bearertoken": true, "access": true, "refresh": true,
	"secret": true, "secretkey": true, "clientsecret": true, "secretaccesskey": true, "password": true, "privatekey": true, "credentials": true,
	"headers": true, "environment": true,
}

var dashes = strings.NewReplacer("-", "", "_", "")

func isSecret(name string) bool {
	return len(name) < 40 && secrets[dashes.Replace(strings.ToLower(name))]
}

// redactor copies a JSON text and replaces the values of secrets, token by token:
// responses are of several megabytes. A text that is not JSON ends in an error, which
// breaks the response off.
type redactor struct {
	src  io.ReadCloser
	dec  *jsontext.Decoder
	enc  *jsontext.Encoder
	out  bytes.Buffer
	err  error
	over int // depth of the innermost secret value that is being copied; 0: none
}

func newRedactor(src io.ReadCloser) *redactor {
	r := &redactor{src: src}
	opts := []jsontext.Options{jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)}
	r.dec = jsontext.NewDecoder(&io.LimitedReader{R: src, N: maxRedacted}, opts...)
	r.enc = jsontext.NewEncoder(onlyWriter{&r.out}, opts...)
	return r
}

// onlyWriter hides that the buffer is one, so that the encoder hands over what it has.
type onlyWriter struct{ io.Writer }

func (r *redactor) Close() error { return r.src.Close() }

func (r *redactor) Read(p []byte) (int, error) {
	for r.out.Len() == 0 && r.err == nil {
		r.err = r.step()
	}
	if r.out.Len() == 0 {
		return 0, r.err
	}
	return r.out.Read(p)
}

func (r *redactor) step() error {
	tok, err := r.dec.ReadToken()
	if err == io.EOF {
		return io.EOF
	}
	if err != nil {
		return fmt.Errorf("OpenCode's response cannot be searched for keys: %w", err)
	}
	// The decoder stands behind tok. In an object, an odd count of tokens means that
	// tok was a name.
	kind, n := r.dec.StackIndex(r.dec.StackDepth())
	isName := tok.Kind() == '"' && kind == '{' && n%2 == 1
	depth := r.dec.StackDepth()
	switch {
	case isName:
		secret := r.over == 0 && isSecret(tok.String())
		if err := r.enc.WriteToken(tok); err != nil {
			return err
		}
		if secret {
			r.over = depth
			return r.value(depth)
		}
		return nil
	case r.over != 0 && tok.Kind() == '"' && tok.String() != "":
		tok = jsontext.String(redacted)
	}
	if err := r.enc.WriteToken(tok); err != nil {
		return err
	}
	if r.over != 0 && depth <= r.over {
		r.over = 0 // the object or list under the secret's name has ended
	}
	return nil
}

// value copies the value of a secret whose name stands at depth: a text or a number is
// replaced at once, an object or a list is followed to its end by step.
func (r *redactor) value(depth int) error {
	switch r.dec.PeekKind() {
	case '{', '[':
		return nil
	}
	r.over = 0
	tok, err := r.dec.ReadToken()
	if err != nil {
		return fmt.Errorf("OpenCode's response cannot be searched for keys: %w", err)
	}
	if tok.Kind() == '"' && tok.String() != "" {
		tok = jsontext.String(redacted)
	}
	return r.enc.WriteToken(tok)
}
