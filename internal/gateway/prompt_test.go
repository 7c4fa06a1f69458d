package gateway_test

import (
	"encoding/json"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestPromptPartsThatReachOutAreRefused(t *testing.T) {
	t.Parallel()
	up := &upstream{}
	h := front(t, up, nil)
	for part, code := range map[string]string{
		`{"type":"file","mime":"text/plain","url":"file:///etc/passwd"}`:                                                     "FILE_REFUSED",
		`{"type":"file","mime":"text/plain","url":" file:///etc/passwd"}`:                                                    "FILE_REFUSED",
		`{"type":"file","mime":"text/plain","url":"FILE:///etc/passwd"}`:                                                     "FILE_REFUSED",
		`{"type":"file","mime":"text/plain","url":"data:text/plain,x","url":"file:///etc/passwd"}`:                           "FILE_REFUSED",
		`{"type":"file","mime":"image/png","url":"http://127.0.0.1:4100/x.png"}`:                                             "FILE_REFUSED",
		`{"type":"file","mime":"image/png","url":"https://example.com/x.png"}`:                                               "FILE_REFUSED",
		`{"type":"file","mime":"text/plain"}`:                                                                                "FILE_REFUSED",
		`{"type":"file","mime":"text/plain","url":7}`:                                                                        "FILE_REFUSED",
		`{"type":"file","mime":"text/plain","url":"/etc/passwd"}`:                                                            "FILE_REFUSED",
		`{"type":"file","mime":"text/plain","url":"data:,x","source":{"type":"resource","clientName":"c","uri":"file:///"}}`: "FILE_REFUSED",
		`{"type":"agent","name":"general @/etc/passwd"}`:                                                                     "BAD_BODY",
		`{"type":"tool"}`:    "BAD_BODY",
		`{"text":"no type"}`: "BAD_BODY",
		`"text"`:             "BAD_BODY",
	} {
		for _, route := range []string{"message", "prompt_async"} {
			w := ask(h, request("POST", "/session/ses_1/"+route, `{"parts":[{"type":"text","text":"a"},`+part+`]}`))
			wantRefusal(t, w, 400, code)
		}
		if strings.Contains(part, `"file"`) {
			wantRefusal(t, ask(h, request("POST", "/session/ses_1/command", `{"command":"init","arguments":"","parts":[`+part+`]}`)), 400, code)
		}
	}
	if _, _, n := up.asked(); n != 0 {
		t.Errorf("%d prompts reached OpenCode", n)
	}
}

func TestPromptThatPassesIsUnchanged(t *testing.T) {
	t.Parallel()
	up := &upstream{}
	h := front(t, up, nil)
	body := `{"agent":"build","big":12345678901234567890,"model":{"modelID":"m","providerID":"p"},` +
		`"parts":[{"text":"see @/etc/passwd <b> & !` + "`ls`" + `","type":"text"},` +
		`{"filename":"a.png","mime":"image/png","type":"file","url":"data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="},` +
		`{"name":"general","source":{"end":8,"start":0,"value":"@general"},"type":"agent"}],"tools":{"bash":true,"webfetch":false}}`
	if w := ask(h, request("POST", "/session/ses_1/message", body)); w.Code != 200 {
		t.Fatalf("status %d %s", w.Code, w.Body)
	}
	if _, got, _ := up.asked(); got != body {
		t.Errorf("OpenCode got\n%s\nwant\n%s", got, body)
	}
}

func TestPermissionsAreNotLifted(t *testing.T) {
	t.Parallel()
	up := &upstream{}
	h := front(t, up, nil)
	prompt := `{"parts":[],"tools":{%q:true}}`
	for _, name := range []string{"webfetch", "websearch", "*", "web*", "skill", "lsp", "", "mcp_x"} {
		rule := `{"permission":[{"permission":"bash","pattern":"*","action":"allow"},{"permission":"` + name + `","pattern":"*","action":"allow"}]}`
		wantRefusal(t, ask(h, request("POST", "/session", rule)), 400, "PERMISSION_REFUSED")
		wantRefusal(t, ask(h, request("PATCH", "/session/ses_1", rule)), 400, "PERMISSION_REFUSED")
		wantRefusal(t, ask(h, request("POST", "/session/ses_1/message", strings.Replace(prompt, "%q", `"`+name+`"`, 1))), 400, "PERMISSION_REFUSED")
	}
	if _, _, n := up.asked(); n != 0 {
		t.Fatalf("%d requests reached OpenCode", n)
	}
	// What `opencode run` sends.
	run := `{"permission":[{"action":"deny","pattern":"*","permission":"question"},{"action":"deny","pattern":"*","permission":"plan_enter"}],"title":"x"}`
	if w := ask(h, request("POST", "/session", run)); w.Code != 200 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if _, got, _ := up.asked(); got != run {
		t.Errorf("OpenCode got %s", got)
	}
}

// What OpenCode looks for in a command's text after the arguments are in it.
var (
	shellRegex = regexp.MustCompile("!`([^`]+)`")
	// The look-behind of OpenCode's expression is taken apart: group 1 is what precedes.
	fileRegex = regexp.MustCompile("(^|[^0-9A-Za-z_`])@(\\.?[^\\s`,.]*(?:\\.[^\\s`,.]+)*)")
)

func TestCommandArgumentsNameNoCommandAndNoFile(t *testing.T) {
	t.Parallel()
	up := &upstream{}
	h := front(t, up, nil)
	for in, want := range map[string]string{
		"fix the bug, mail a@b.example": "fix the bug, mail a@b.example",
		"!`touch /tmp/x`":               "! `touch /tmp/x`",
		"a !\"`id`\" b":                 "a ! \"`id`\" b",
		"see @/etc/passwd and (@~/x)":   "see @ /etc/passwd and (@ ~/x)",
		"`id`":                          " `id`",
		"now!":                          "now! ",
		"$`x $' $& $1 $ARGUMENTS":       "$ `x $ ' $ & $1 $ARGUMENTS",
		"@@/etc/passwd":                 "@ @ /etc/passwd",
		"é@/etc/passwd \"@src/x\" `@a`": "é@ /etc/passwd \"@ src/x\" `@a`",
	} {
		b, _ := json.Marshal(map[string]string{"command": "init", "arguments": in})
		if w := ask(h, request("POST", "/session/ses_1/command", string(b))); w.Code != 200 {
			t.Fatalf("%q: %d %s", in, w.Code, w.Body)
		}
		_, body, _ := up.asked()
		var got struct{ Arguments string }
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got.Arguments); diff != "" {
			t.Errorf("%q (-want +got):\n%s", in, diff)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		args := rapid.StringOfN(rapid.RuneFrom([]rune("!`@$'& \"ax/.~é\n")), 0, 30, -1).Draw(t, "arguments")
		b, _ := json.Marshal(map[string]string{"command": "init", "arguments": args})
		ask(h, request("POST", "/session/ses_1/command", string(b)))
		_, body, _ := up.asked()
		var got struct{ Arguments string }
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Fatal(err)
		}
		for _, template := range []string{"$ARGUMENTS", "Do it!$ARGUMENTS", "about `$ARGUMENTS` and `x`", "x\n\n$ARGUMENTS"} {
			text := strings.ReplaceAll(template, "$ARGUMENTS", got.Arguments)
			if m := shellRegex.FindString(text); m != "" {
				t.Fatalf("%q became %q: a shell command %q", args, text, m)
			}
			for _, m := range fileRegex.FindAllStringSubmatch(text, -1) {
				if m[2] != "" {
					t.Fatalf("%q became %q: a file %q", args, text, m[2])
				}
			}
		}
	})
}

func TestSubtasksNameNoFile(t *testing.T) {
	t.Parallel()
	up := &upstream{}
	h := front(t, up, nil)
	body := `{"parts":[{"type":"subtask","agent":"general","description":"d","prompt":"read @/etc/passwd and !` + "`id`" + `"}]}`
	if w := ask(h, request("POST", "/session/ses_1/message", body)); w.Code != 200 {
		t.Fatal(w.Body)
	}
	if _, got, _ := up.asked(); !strings.Contains(got, "read @ /etc/passwd and ! `id`") {
		t.Errorf("OpenCode got %s", got)
	}
}

func TestBodiesThatAreWrong(t *testing.T) {
	t.Parallel()
	up := &upstream{}
	h := front(t, up, nil)
	for _, tc := range []struct {
		path, body, kind string
		status           int
		code             string
	}{
		{"/session/s/message", "", "application/json", 400, "BAD_BODY"},
		{"/session/s/message", "[]", "application/json", 400, "BAD_BODY"},
		{"/session/s/message", "null", "application/json", 400, "BAD_BODY"},
		{"/session/s/message", "{", "application/json", 400, "BAD_BODY"},
		{"/session/s/message", "{}{}", "application/json", 400, "BAD_BODY"},
		{"/session/s/message", `{"parts":{}}`, "application/json", 400, "BAD_BODY"},
		{"/session/s/message", `{"parts":[],"tools":[]}`, "application/json", 400, "BAD_BODY"},
		{"/session/s/message", `{"parts":[]}`, "text/plain", 415, "BAD_CONTENT_TYPE"},
		{"/session/s/message", `{"parts":[]}`, "", 415, "BAD_CONTENT_TYPE"},
		{"/session/s/command", `{"command":"init"}`, "application/json", 400, "BAD_BODY"},
		{"/session", `{"permission":"allow"}`, "application/json", 400, "BAD_BODY"},
		{"/session", `{"permission":["allow"]}`, "application/json", 400, "BAD_BODY"},
		{"/session/s/abort", strings.Repeat("x", 2<<20), "application/json", 413, "BODY_TOO_LARGE"},
		{"/session/s/message", `{"parts":[{"type":"text","text":"` + strings.Repeat("x", 65<<20) + `"}]}`, "application/json", 413, "BODY_TOO_LARGE"},
	} {
		r := request("POST", tc.path, tc.body)
		r.Header.Set("Content-Type", tc.kind)
		wantRefusal(t, ask(h, r), tc.status, tc.code)
	}
	zipped := request("POST", "/session/s/message", "{}")
	zipped.Header.Set("Content-Encoding", "gzip")
	wantRefusal(t, ask(h, zipped), 415, "BAD_ENCODING")
	if _, _, n := up.asked(); n != 0 {
		t.Errorf("%d requests reached OpenCode", n)
	}
}

// TestSessionWithoutBody makes one as the web page does: without a body, or a type of it.
func TestSessionWithoutBody(t *testing.T) {
	t.Parallel()
	up := &upstream{}
	r := httptest.NewRequest("POST", "/session?directory=%2Fhome%2Fuser%2Fproject", nil)
	r.Host = "localhost:8787"
	if w := ask(front(t, up, nil), r); w.Code != 200 {
		t.Fatal(w.Code, w.Body)
	}
	if _, sent, n := up.asked(); n != 1 || sent != "" {
		t.Errorf("OpenCode got %d requests, the body %q", n, sent)
	}
}

func TestProjectIcon(t *testing.T) {
	t.Parallel()
	up := &upstream{}
	h := front(t, up, nil)
	for _, body := range []string{`{}`, `{"name":"x"}`, `{"icon":"mint"}`, `{"icon":{"color":"mint","url":"file:///etc/passwd"}}`, `{"icon":{"color":"url(x)"}}`,
		`{"icon":{"color":"mint"},"commands":{"start":"id"}}`} {
		wantRefusal(t, ask(h, request("PATCH", "/project/p1", body)), 403, "REFUSED")
	}
	if w := ask(h, request("PATCH", "/project/p1", `{"icon":{"color":"mint"}}`)); w.Code != 200 {
		t.Error(w.Code, w.Body)
	}
	if _, sent, n := up.asked(); n != 1 || sent != `{"icon":{"color":"mint"}}` {
		t.Errorf("OpenCode got %d requests, the last %s", n, sent)
	}
}

func FuzzPrompt(f *testing.F) {
	for _, s := range []string{
		`{"parts":[{"type":"file","url":"data:,x"}]}`, `{"parts":[{"type":"file","url":"data:,x","url":"file:///x"}],"parts":null}`,
		`{"Parts":[{"type":"file","url":"file:"}],"parts":[{"type":"subtask","prompt":"@/x"}]}`, `{"parts":[],"tools":{"x":1}}`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, body string) {
		up := &upstream{}
		w := ask(front(t, up, nil), request("POST", "/session/s/message", body))
		_, sent, n := up.asked()
		if n == 0 {
			if w.Code != 400 {
				t.Fatalf("refused with %d", w.Code)
			}
			return
		}
		var exact map[string]any
		if err := json.Unmarshal([]byte(sent), &exact); err != nil {
			t.Fatal(err)
		}
		tools, _ := exact["tools"].(map[string]any)
		for name, on := range tools {
			if on == true && strings.HasPrefix(name, "web") {
				t.Fatalf("%s passed", sent)
			}
		}
		parts, _ := exact["parts"].([]any)
		for _, p := range parts {
			part := p.(map[string]any)
			if url, _ := part["url"].(string); part["type"] == "file" && !strings.HasPrefix(strings.ToLower(url), "data:") {
				t.Fatalf("%s passed", sent)
			}
		}
	})
}
