package tooltest

import (
	"io"
	"net/http"
	"strings"
)

// doc is a page with what pages are made of.
const doc = `<!DOCTYPE html><html><head><title>Title</title><style>p{}</style><script>evil()</script></head><body>
<h1>Head</h1><h2>Sub <em>head</em></h2><p>A <strong>bold</strong> &amp; <em>soft</em> <a href="/x">link</a>, <code>code</code>.<br>Next line.</p>
<p>Second   paragraph
with a break.</p><hr><pre><code class="language-go">x := 1
y := 2</code></pre><blockquote><p>said</p></blockquote><img src="a.png" alt="pic"><noscript>none</noscript></body></html>`

// Web answers the requests of FetchCases.
func Web() http.Handler {
	mux := http.NewServeMux()
	serve := func(path, contentType, body string) {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			io.WriteString(w, body)
		})
	}
	serve("/page", "text/html; charset=utf-8", doc)
	serve("/simple", "text/html", "<html><body><h1>Head</h1><p>A <strong>bold</strong> word and a <a href=\"http://x.example/\">link</a>.</p></body></html>")
	serve("/list", "text/html", "<ul><li>one</li><li>two</li></ul><ol><li>a</li><li>b</li></ol>")
	serve("/table", "text/html", "<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>")
	serve("/marks", "text/html", "<p>1. not a list, *stars* and _lines_ [brackets] # hash</p>")
	serve("/plain", "text/plain", "<b>kept</b>\nas it is\n")
	serve("/json", "application/json; charset=utf-8", `{"a": [1, 2]}`)
	serve("/empty", "text/plain", "")
	serve("/bom", "text/plain", "\ufeffafter the mark")
	serve("/latin", "text/plain; charset=iso-8859-1", "caf\xe9")
	serve("/image", "image/png", tinyPNG)
	serve("/svg", "image/svg+xml", "<svg></svg>")
	serve("/long", "text/plain", strings.Repeat("a line\n", 3000))
	serve("/wide", "text/plain", strings.Repeat(strings.Repeat("x", 99)+"\n", 900))
	serve("/large", "text/plain", strings.Repeat("x", 6<<20))
	mux.HandleFunc("/none", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	mux.Handle("/moved", http.RedirectHandler("/plain", http.StatusFound))
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	return mux
}

// FetchCases are those of webfetch; {W} stands for the address of Web.
func FetchCases() []Case {
	fetch := func(path string, more ...any) Case {
		args := m{"url": "{W}" + path}
		name := path
		for i := 0; i+1 < len(more); i += 2 {
			args[more[i].(string)] = more[i+1]
			name += " " + strings.Trim(more[i].(string), " ")
			if s, ok := more[i+1].(string); ok {
				name += " " + s
			}
		}
		return Case{Name: name, Tool: "webfetch", Args: args}
	}
	other := func(why string, cases ...Case) []Case {
		for i := range cases {
			cases[i].Differs = why
		}
		return cases
	}
	cases := []Case{
		fetch("/simple"), fetch("/page", "format", "text"), fetch("/page", "format", "html"), fetch("/list", "format", "text"),
		fetch("/plain"), fetch("/plain", "format", "text"), fetch("/json"), fetch("/empty"), fetch("/bom"), fetch("/latin"), fetch("/image"), fetch("/svg"),
		fetch("/moved"), fetch("/large"), fetch("/simple", "timeout", 5), fetch("/none"), fetch("/slow", "timeout", 0.5),
		{Name: "no http", Tool: "webfetch", Args: m{"url": "ftp://x.example/"}},
		{Name: "a file", Tool: "webfetch", Args: m{"url": "file:///etc/passwd"}},
	}
	cases = append(cases, other("Markdown of another converter: white space, tables, what is escaped", fetch("/page"), fetch("/list"), fetch("/table"), fetch("/marks"))...)
	cases = append(cases, other("the note that text was cut counts, too, so that OpenCode does not cut again", fetch("/long"), fetch("/wide"))...)
	cases = append(cases, other("a clearer error", fetch("/simple", "format", "pdf"), Case{Name: "no url", Tool: "webfetch", Args: m{"format": "text"}}, Case{Name: "nobody there", Tool: "webfetch", Args: m{"url": "http://127.0.0.1:1/"}})...)
	return cases
}
