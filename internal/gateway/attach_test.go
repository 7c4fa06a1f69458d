package gateway_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"image"
	"image/png"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tongs-dev/tongs/internal/gateway"
)

func TestNamedFilesAreReplacedByTheirContent(t *testing.T) {
	t.Parallel()
	up := &upstream{}
	var asked []gateway.File
	h := front(t, up, func(c *gateway.Config) {
		c.Attach = func(_ context.Context, session string, f gateway.File) ([]map[string]any, error) {
			if session != "ses_1" {
				t.Errorf("session %q", session)
			}
			asked = append(asked, f)
			switch f.Path {
			case "/broken":
				return nil, errors.New("no guest")
			case "/large":
				return nil, &gateway.Error{Status: 413, Code: "FILE_TOO_LARGE", Message: "large", Hint: "smaller"}
			}
			return []map[string]any{
				{"type": "text", "synthetic": true, "text": "called"},
				{"type": "file", "mime": "text/plain", "filename": f.Filename, "url": "data:text/plain;base64,eA=="},
			}, nil
		}
	})
	send := func(route, url string) (int, string) {
		body, _ := json.Marshal(map[string]any{"command": "init", "arguments": "", "parts": []any{map[string]any{
			"type": "file", "mime": "text/x-go", "filename": "a b.go", "url": url, "source": map[string]any{"type": "file", "path": "a b.go"}}}})
		w := ask(h, request("POST", "/session/ses_1/"+route, string(body)))
		_, got, _ := up.asked()
		return w.Code, got
	}
	if status, got := send("message", "file:///home/user/project/x/../a%20b.go?start=3&end=9"); status != 200 || strings.Contains(got, "file://") || !strings.Contains(got, `"called"`) || !strings.Contains(got, `"source"`) {
		t.Errorf("%d %s", status, got)
	}
	if d := cmp.Diff([]gateway.File{{Path: "/home/user/project/a b.go", Start: 3, End: 9, Mime: "text/x-go", Filename: "a b.go"}}, asked); d != "" {
		t.Error(d)
	}
	// A slash command's parts are files only.
	if status, got := send("command", "FILE://localhost/a"); status != 200 || strings.Contains(got, `"called"`) || !strings.Contains(got, "base64,eA==") {
		t.Errorf("%d %s", status, got)
	}
	_, _, before := up.asked()
	for url, want := range map[string]int{
		"file:///broken": 502, "file:///large": 413, "file://other/x": 400, "file:x": 400, "file:///a%00b": 400, "file:///a?start=x": 400, "file:///a?end=-1": 400,
		"file:///%ff": 400, "file:": 400, "file:///a%zz": 400, "http://127.0.0.1/x": 400, "ftp://x/y": 400, "": 400,
	} {
		if status, _ := send("message", url); status != want {
			t.Errorf("%s: %d, want %d", url, status, want)
		}
	}
	if _, _, n := up.asked(); n != before {
		t.Errorf("%d prompts reached OpenCode", n-before)
	}
}

func onePixel(t testing.TB) string {
	t.Helper()
	var b strings.Builder
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, 1, 1))); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestCarriedFilesAreWhatTheySay(t *testing.T) {
	t.Parallel()
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	png, pdf := onePixel(t), "%PDF-1.7\n\xff\xfe"
	for _, c := range []struct{ mime, url, want string }{
		{"text/plain", "data:text/plain,a%20b", "data:text/plain;base64," + b64("a b")},
		{"text/plain", "data:,x", "data:text/plain;base64," + b64("x")},
		{"", "data:application/json;base64," + b64("{}"), "data:text/plain;base64," + b64("{}")},
		{"image/svg+xml", "data:image/svg+xml,<svg/>", "data:text/plain;base64," + b64("<svg/>")},
		{"image/png", "data:image/png;base64," + b64(png), "data:image/png;base64," + b64(png)},
		{"image/jpeg", "data:image/jpeg;base64," + b64(png), "data:image/png;base64," + b64(png)},
		{"image/png", "DATA:image/png;charset=x;BASE64," + strings.TrimRight(b64(png), "="), "data:image/png;base64," + b64(png)},
		{"application/pdf", "data:application/pdf;base64," + b64(pdf), "data:application/pdf;base64," + b64(pdf)},
		{"audio/wav", "data:audio/wav;base64," + b64("RIFF\x00\xff"), "data:audio/wav;base64," + b64("RIFF\x00\xff")},
		{"image/png", "data:image/png;base64," + b64("words"), "data:text/plain;base64," + b64("words")},

		{"image/png", "data:image/png;base64," + b64("\x00\x01\xff"), ""},
		{"image/png", "data:image/png;base64," + b64("\x89PNG\r\n\x1a\n\x00"), ""}, // OpenCode could not decode it
		{"application/zip", "data:application/zip;base64," + b64("PK\x03\x04\x00\xff"), ""},
		{"application/octet-stream", "data:;base64," + b64("\x00"), ""},
		{"application/pdf", "data:application/pdf;base64," + b64("\x00\xff"), ""},
		{"image/png", "data:image/png;base64,%%%", ""},
		{"image/png", "data:image/png;base64,@@@@", ""},
		{"text/plain", "data:text/plain", ""},
		{"text/plain", "data:text/plain,%zz", ""},
	} {
		up := &upstream{}
		body, _ := json.Marshal(map[string]any{"parts": []any{map[string]any{"type": "file", "mime": c.mime, "url": c.url}}})
		w := ask(front(t, up, nil), request("POST", "/session/ses_1/message", string(body)))
		_, got, _ := up.asked()
		switch {
		case c.want == "":
			wantRefusal(t, w, 400, "FILE_REFUSED")
		case w.Code != 200 || !strings.Contains(got, `"url":"`+c.want+`"`) || !strings.Contains(got, `"mime":"`+strings.TrimPrefix(c.want[:strings.Index(c.want, ";")], "data:")+`"`):
			t.Errorf("%s %.60s: %d %.300s", c.mime, c.url, w.Code, got)
		}
	}
}

func FuzzPromptParts(f *testing.F) {
	f.Add("text/plain", "data:,x")
	f.Add("image/png", "data:image/png;base64,iVBORw0KGgo=")
	f.Add("x", "file:///a?start=1")
	f.Add("", "data:;base64,")
	f.Fuzz(func(t *testing.T, mime, url string) {
		up := &upstream{}
		body, err := json.Marshal(map[string]any{"parts": []any{map[string]any{"type": "file", "mime": mime, "url": url}}})
		if err != nil {
			t.Skip()
		}
		w := ask(front(t, up, nil), request("POST", "/session/ses_1/message", string(body)))
		_, got, n := up.asked()
		if w.Code != 200 && n != 0 || w.Code == 200 && !strings.Contains(got, `"url":"data:`) {
			t.Errorf("%d %s", w.Code, got)
		}
	})
}

func TestShellCommandsAreLookedAt(t *testing.T) {
	t.Parallel()
	up := &upstream{}
	h := front(t, up, nil)
	for _, body := range []string{`{}`, `{"command":7}`, `{"command":"  "}`, `{"command":"a\u0000b"}`, `{"command":"` + strings.Repeat("x", 128<<10) + `"}`} {
		wantRefusal(t, ask(h, request("POST", "/session/ses_1/shell", body)), 400, "BAD_BODY")
	}
	if w := ask(h, request("POST", "/session/ses_1/shell", `{"command":"ls | wc -l","agent":"build"}`)); w.Code != 200 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
