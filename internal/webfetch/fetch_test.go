package webfetch_test

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"

	"github.com/tongs-dev/tongs/internal/webfetch"
	"github.com/tongs-dev/tongs/sandbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// web is a server, and connects every address to itself, but those of forbidden.example.
func web(t testing.TB, handler http.HandlerFunc) webfetch.Config {
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return webfetch.Config{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		if strings.HasPrefix(address, "forbidden.example:") {
			return nil, sandbox.Errf(sandbox.CodePermissionDenied, "connect", "the sandbox may not", "allow it under [network] where Tongs is configured")
		}
		return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
	}}
}

func fetch(t testing.TB, cfg webfetch.Config, args map[string]any) (*sandbox.ToolResult, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	res, err := webfetch.Fetch(ctx, cfg, args)
	if ctx.Err() != nil {
		t.Fatal("it hung")
	}
	return res, err
}

func page(contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		io.WriteString(w, body)
	}
}

func TestFormats(t *testing.T) {
	t.Parallel()
	const doc = "<html><head><title>T</title><script>evil()</script></head><body><h1>Head</h1><p>a <b>bold</b> &amp; <em>soft</em> <a href=\"/x\">link</a></p><ul><li>one</li><li>two</li></ul><hr><pre><code>x\ny</code></pre><noscript>n</noscript></body></html>"
	for _, c := range []struct {
		format, contentType, body, want string
	}{
		{"markdown", "text/html; charset=utf-8", doc, "# Head\n\na **bold** & *soft* [link](/x)\n\n- one\n- two\n\n---\n\n```\nx\ny\n```"},
		{"", "text/html", "<p>x</p>", "x"},
		{"text", "text/html", doc, "THeada bold & soft linkonetwox\ny"},
		{"html", "text/html", doc, doc},
		{"markdown", "text/plain", "<b>kept</b>", "<b>kept</b>"},
		{"text", "application/json", `{"a": 1}`, `{"a": 1}`},
		{"text", "text/plain", "\ufeffbom \xff", "bom \ufffd"},
	} {
		args := map[string]any{"url": "http://example.org/p?q=1"}
		if c.format != "" {
			args["format"] = c.format
		}
		res, err := fetch(t, web(t, page(c.contentType, c.body)), args)
		if err != nil {
			t.Fatal(err)
		}
		if res.Output != c.want || res.Title != "http://example.org/p?q=1 ("+c.contentType+")" {
			t.Errorf("%s of %s: %q, title %q", c.format, c.contentType, res.Output, res.Title)
		}
	}
}

func TestImage(t *testing.T) {
	t.Parallel()
	res, err := fetch(t, web(t, page("Image/PNG; x=y", "bytes")), map[string]any{"url": "http://example.org/a.png"})
	if err != nil || res.Output != "Image fetched successfully" || len(res.Attachments) != 1 || res.Attachments[0].URL != "data:image/png;base64,Ynl0ZXM=" {
		t.Errorf("%+v, %v", res, err)
	}
	res, err = fetch(t, web(t, page("image/svg+xml", "<svg/>")), map[string]any{"url": "http://example.org/a.svg"})
	if err != nil || res.Output != "<svg/>" || len(res.Attachments) != 0 {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestBadCalls(t *testing.T) {
	t.Parallel()
	cfg := web(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/404":
			http.NotFound(w, r)
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "/out":
			http.Redirect(w, r, "http://forbidden.example/", http.StatusFound)
		case "/file":
			w.Header().Set("Location", "file:///etc/passwd")
			w.WriteHeader(http.StatusFound)
		case "/large":
			w.Header().Set("Content-Length", fmt.Sprint(10<<20))
		case "/endless":
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		case "/bomb":
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			for range 1000 {
				z.Write(make([]byte, 64<<10))
			}
			z.Close()
		case "/slow":
			<-r.Context().Done()
		case "/slowbody":
			w.Write([]byte("begin"))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		case "/headers":
			for i := range 5000 {
				w.Header().Set(fmt.Sprint("X-", i), strings.Repeat("x", 1000))
			}
		}
	})
	for _, c := range []struct {
		args map[string]any
		code sandbox.Code
		word string
	}{
		{map[string]any{}, sandbox.CodeInvalidArgument, "url"},
		{map[string]any{"url": 7.0}, sandbox.CodeInvalidArgument, "url"},
		{map[string]any{"url": "ftp://example.org"}, sandbox.CodeInvalidArgument, "URL must start with http:// or https://"},
		{map[string]any{"url": "file:///etc/passwd"}, sandbox.CodeInvalidArgument, "URL must start with"},
		{map[string]any{"url": "http://"}, sandbox.CodeInvalidArgument, "not a valid URL"},
		{map[string]any{"url": "http://a\x00b/"}, sandbox.CodeInvalidArgument, "not a valid URL"},
		{map[string]any{"url": "http://" + strings.Repeat("a", 1<<20)}, sandbox.CodeInvalidArgument, "bytes"},
		{map[string]any{"url": "http://x.example/", "format": "pdf"}, sandbox.CodeInvalidArgument, "format"},
		{map[string]any{"url": "http://x.example/", "timeout": "1"}, sandbox.CodeInvalidArgument, "timeout"},
		{map[string]any{"url": "http://x.example/", "timeout": -1.0}, sandbox.CodeInvalidArgument, "timeout"},
		{map[string]any{"url": "http://x.example/404"}, sandbox.CodeToolFailed, "404"},
		{map[string]any{"url": "http://x.example/loop"}, sandbox.CodeToolFailed, "redirects"},
		{map[string]any{"url": "http://x.example/out"}, sandbox.CodePermissionDenied, "x.example"},
		{map[string]any{"url": "http://x.example/file"}, sandbox.CodeToolFailed, "file:"},
		{map[string]any{"url": "http://forbidden.example/"}, sandbox.CodePermissionDenied, "may not"},
		{map[string]any{"url": "http://x.example/large"}, sandbox.CodeFileTooLarge, "5MB"},
		{map[string]any{"url": "http://x.example/endless"}, sandbox.CodeFileTooLarge, "5MB"},
		{map[string]any{"url": "http://x.example/bomb"}, sandbox.CodeFileTooLarge, "5MB"},
		{map[string]any{"url": "http://x.example/slow", "timeout": 0.2}, sandbox.CodeTimeout, "timed out"},
		{map[string]any{"url": "http://x.example/slowbody", "timeout": 0.2}, sandbox.CodeTimeout, "timed out"},
		{map[string]any{"url": "http://x.example/headers"}, sandbox.CodeToolFailed, "x.example"},
		{map[string]any{"url": "https://x.example/"}, sandbox.CodeToolFailed, "x.example"}, // it speaks no TLS
	} {
		_, err := fetch(t, cfg, c.args)
		var e *sandbox.Error
		if !errors.As(err, &e) || e.Code != c.code || !strings.Contains(e.Message, c.word) || len(e.Message) > 2000 {
			t.Errorf("%.100v: %v, want %s and %q", c.args, err, c.code, c.word)
		}
	}
}

func TestAskedFirst(t *testing.T) {
	t.Parallel()
	no := errors.New("no")
	cfg := web(t, func(http.ResponseWriter, *http.Request) { t.Error("it was fetched") })
	var asked sandbox.AskRequest
	cfg.Ask = func(_ context.Context, r sandbox.AskRequest) error { asked = r; return no }
	if _, err := fetch(t, cfg, map[string]any{"url": "http://x.example/", "timeout": 7.0}); err != no {
		t.Errorf("%v, want what was said", err)
	}
	if asked.Permission != "webfetch" || asked.Patterns[0] != "http://x.example/" || asked.Always[0] != "*" || asked.Metadata["format"] != "markdown" || asked.Metadata["timeout"] != 7.0 {
		t.Errorf("asked %+v", asked)
	}
}

func TestAbort(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cfg := web(t, func(_ http.ResponseWriter, r *http.Request) { cancel(); <-r.Context().Done() })
	_, err := webfetch.Fetch(ctx, cfg, map[string]any{"url": "http://x.example/"})
	if sandbox.CodeOf(err) != sandbox.CodeAborted {
		t.Error(err)
	}
}

func TestLongPagesAreKept(t *testing.T) {
	t.Parallel()
	for _, text := range []string{strings.Repeat("line\n", 30_000), strings.Repeat("é", 100_000), strings.Repeat("long line "+strings.Repeat("x", 3000)+"\n", 100)} {
		kept := ""
		cfg := web(t, page("text/plain", text))
		cfg.Keep = func(_ context.Context, text string) (string, error) { kept = text; return "/tmp/kept", nil }
		res, err := fetch(t, cfg, map[string]any{"url": "http://x.example/"})
		if err != nil {
			t.Fatal(err)
		}
		if kept != text || len(res.Output) > 51200 || strings.Count(res.Output, "\n") >= 2000 || !utf8.ValidString(res.Output) || res.Metadata["truncated"] != true ||
			!strings.Contains(res.Output, "Full output saved to: /tmp/kept") || !strings.HasPrefix(text, res.Output[:1000]) {
			t.Errorf("%d kept, %d bytes, %d lines", len(kept), len(res.Output), strings.Count(res.Output, "\n"))
		}
		cfg.Keep = func(context.Context, string) (string, error) { return "", errors.New("no room") }
		if res, err := fetch(t, cfg, map[string]any{"url": "http://x.example/"}); err != nil || !strings.Contains(res.Output, "could not be kept") {
			t.Errorf("%v", err)
		}
	}
}

func TestHostilePages(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"deep":       strings.Repeat("<div>", 200_000) + "words",
		"lists":      strings.Repeat("<ul><li>", 50_000) + "words",
		"quotes":     strings.Repeat("<blockquote>", 10_000) + "words",
		"tables":     strings.Repeat("<table><tr><td>", 2_000) + "words",
		"attributes": "<p " + strings.Repeat("a=b ", 300_000) + ">words</p>",
		"many":       strings.Repeat("<i></i>", 300_000) + "words",
		"open":       "words<a href='" + strings.Repeat("x", 1<<20),
		"emphasis":   strings.Repeat("<b><i>*_", 20_000) + "words",
	} {
		for _, format := range []string{"markdown", "text"} {
			began := time.Now()
			res, err := fetch(t, web(t, page("text/html", body)), map[string]any{"url": "http://x.example/", "format": format})
			if err != nil {
				t.Errorf("%s as %s: %v", name, format, err)
			} else if len(res.Output) > 51200 {
				t.Errorf("%s as %s: %d bytes", name, format, len(res.Output))
			}
			t.Logf("%s as %s: %v", name, format, time.Since(began))
		}
	}
}

func FuzzConvert(f *testing.F) {
	f.Add("<h1>x</h1><p>a<br>b</p>")
	f.Add("<table><tr><td>1<td>2</table>")
	f.Add("<pre>```</pre><ul><li><ol><li>x")
	f.Fuzz(func(t *testing.T, body string) {
		cfg := web(t, page("text/html", body))
		for _, format := range []string{"markdown", "text"} {
			res, err := fetch(t, cfg, map[string]any{"url": "http://x.example/", "format": format})
			if err != nil || !utf8.ValidString(res.Output) {
				t.Fatalf("%v", err)
			}
		}
	})
}
