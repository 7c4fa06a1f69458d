package preview

import (
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"strconv"
	"strings"

	"github.com/tongs-dev/tongs/sandbox"
)

// Codes of this package's own.
const (
	// CodeNotExposed: no such port is exposed, or its token is another.
	CodeNotExposed = sandbox.CodeInvalidToken
	// CodeForeignOrigin: a page of another origin asks.
	CodeForeignOrigin = sandbox.CodeForeignOrigin
)

func status(code sandbox.Code) int {
	switch {
	case code == CodeNotExposed:
		return http.StatusNotFound // it does not say that there is something
	case code.Known():
		return code.HTTPStatus()
	}
	return http.StatusServiceUnavailable // a sandbox that is stopped, or that tongs is stopping
}

const page = `<!doctype html>
<html lang="en"><meta charset="utf-8"><title>%[1]s</title>%[4]s
<meta name="viewport" content="width=device-width">
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:36em;margin:15vh auto;padding:0 1em;color:#222;background:#fff}code{color:#777}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}}</style>
<h1>%[1]s</h1><p>%[2]s</p><p><code>%[3]s</code></p></html>
`

// writeRefusal answers with a page for people, or JSON {error, code, hint}.
func writeRefusal(w http.ResponseWriter, r *http.Request, e *sandbox.Error) {
	head := w.Header()
	head.Set("Cache-Control", "no-store")
	head.Set("X-Content-Type-Options", "nosniff")
	code := status(e.Code)
	if code == http.StatusServiceUnavailable || code == http.StatusBadGateway {
		head.Set("Retry-After", "2")
	}
	message := e.Message
	if message == "" {
		message = string(e.Code)
	}
	var body []byte
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		refresh := ""
		if e.Code == sandbox.CodeServiceNotResponding && r.Method == http.MethodGet {
			refresh = `<meta http-equiv="refresh" content="2">` // until the server has started
		}
		head.Set("Content-Type", "text/html; charset=utf-8")
		head.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors *")
		body = fmt.Appendf(nil, page, html.EscapeString(capital(message)), html.EscapeString(capital(e.Hint)), html.EscapeString(string(e.Code)), refresh)
	} else {
		head.Set("Content-Type", "application/json")
		body, _ = json.Marshal(struct {
			Error string       `json:"error"`
			Code  sandbox.Code `json:"code"`
			Hint  string       `json:"hint,omitempty"`
		}{message, e.Code, e.Hint}) // strings always encode
	}
	head.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(code)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // the browser may be gone
	}
}

func capital(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
