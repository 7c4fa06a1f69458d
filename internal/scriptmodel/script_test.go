package scriptmodel_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tongs-dev/tongs/internal/scriptmodel"
)

const twoCalls = `[
  {"tool": "bash", "args": {"command": "echo port 80 is \"open\""}},
  {"text": "Next: "}, {"text": "{{last}}."},
  {"tools": [{"tool": "read", "args": {"filePath": "{{result 0 /port (\\d+)/}}.txt", "limit": 3}}, {"tool": "bash", "args": {"command": "ls"}}]},
  {"text": "{{result 0}}, {{result 1}}, {{result -1}}, {{last /l./}}, {{tools}}, {{system}}"}
]`

func TestScriptPlays(t *testing.T) {
	every(t, func(t *testing.T, c *client) {
		c.user("Please run this.\n```tongs-script\n" + twoCalls + "\n```\nThanks.")
		first := c.ask()
		if diff := cmp.Diff([]gotCall{{Name: "bash", Args: map[string]any{"command": `echo port 80 is "open"`}}}, noIDs(first.Calls)); diff != "" {
			t.Fatalf("first answer (-want +got):\n%s", diff)
		}
		c.result(first.Calls[0], "port 80 is open")
		second := c.ask()
		if want := "Next: port 80 is open."; second.Text != want {
			t.Errorf("text is %q, want %q", second.Text, want)
		}
		want := []gotCall{
			{Name: "read", Args: map[string]any{"filePath": "80.txt", "limit": 3.0}},
			{Name: "bash", Args: map[string]any{"command": "ls"}},
		}
		if diff := cmp.Diff(want, noIDs(second.Calls)); diff != "" {
			t.Fatalf("second answer (-want +got):\n%s", diff)
		}
		c.result(second.Calls[0], "no file")
		c.result(second.Calls[1], "a list")
		third := c.ask()
		if want := "port 80 is open, no file, a list, li, bash,read,write, You are a test."; third.Text != want {
			t.Errorf("text is %q, want %q", third.Text, want)
		}
		if third.Finish != "stop" && third.Finish != "completed" {
			t.Errorf("finish is %q", third.Finish)
		}
		if over := c.ask(); !strings.Contains(over.Text, "script has ended after 3 answers") {
			t.Errorf("behind the end: %q", over.Text)
		}
		// The next prompt starts a script of its own.
		c.user(`[{"text": "again"}]`)
		if again := c.ask(); again.Text != "again" {
			t.Errorf("the second script said %q", again.Text)
		}
		c.user("and now?")
		if plain := c.ask(); !strings.Contains(plain.Text, "scripted model") {
			t.Errorf("a prompt without a script got %q", plain.Text)
		}
	})
}

func noIDs(calls []gotCall) []gotCall {
	out := make([]gotCall, len(calls))
	for i, k := range calls {
		k.ID = ""
		out[i] = k
	}
	return out
}

func TestScriptAnywhereInThePrompt(t *testing.T) {
	t.Parallel()
	for name, prompt := range map[string]string{
		"bare":         `[{"text":"a \"b\" \\ c"}]`,
		"in a text":    "Do [this] now: [ {\"text\":\"a \\\"b\\\" \\\\ c\"} ] and stop",
		"quoted":       `"` + strings.ReplaceAll(`[{"text": "a \"b\" \\ c"}]`, `"`, `\"`) + `"`,
		"fenced":       "x\n```tongs-script\n[{\"text\":\"a \\\"b\\\" \\\\ c\"}]\n```",
		"not closed":   "```tongs-script\n[{\"text\":\"a \\\"b\\\" \\\\ c\"}]",
		"fence quoted": `"` + strings.ReplaceAll("run\n```tongs-script\n"+`[{"text": "a \"b\" \\ c"}]`+"\n```\n", `"`, `\"`) + `"`,
		"a reminder":   "<system-reminder>\nThe user sent: [{\"text\":\"a \\\"b\\\" \\\\ c\"}]\n</system-reminder>",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newClient(t, "chat", true)
			c.user(prompt)
			if got := c.ask(); got.Text != `a "b" \ c` {
				t.Errorf("said %q", got.Text)
			}
		})
	}
}

func TestWrongScriptIsNamed(t *testing.T) {
	t.Parallel()
	for prompt, want := range map[string]string{
		"```tongs-script\n[{\"tool\":\"bash\"},]\n```":                "not a JSON list",
		"```tongs-script\n[]\n```":                                    "no steps",
		"```tongs-script\n[{\"text\":\"a\"}] more\n```":               "something follows",
		`[{"tool":"bash","arguments":{}}]`:                            "unknown field",
		`[{"tool":"bash","text":"x"}]`:                                "step 0: it needs exactly one of",
		`[{"text":"x"},{"text":"y","args":{}}]`:                       "step 1: args belongs to tool",
		`[{"tool":""}]`:                                               "tool needs a name",
		`[{"tools":[]}]`:                                              "1 to 64 calls",
		`[{"delay":"1h"}]`:                                            "at most 10m",
		`[{"delay":"soon"}]`:                                          "delay is a duration",
		`[{"error":{"status":200}}]`:                                  "400 to 599",
		`[{"text":"{{last}}"}]`:                                       "there are 0 tool results",
		`[{"tool":"bash","args":{"command":["{{result 3}}"]}}]`:       "there are 0 tool results",
		`[{"text":"{{result}}"}]`:                                     "result needs a number",
		`[{"text":"{{prompt /(/}}"}]`:                                 "missing closing",
		`[{"text":"{{prompt /zebra\\d/}}"}]`:                          "no match",
		"[" + strings.Repeat(`{"text":"x"},`, 1000) + `{"text":"x"}]`: "1001 steps",
	} {
		c := newClient(t, "chat", false)
		c.user(prompt)
		got := c.ask()
		if !strings.Contains(got.Text, want) || !strings.Contains(got.Text, "script") {
			t.Errorf("%.60s: said %q, want it to name %q", prompt, got.Text, want)
		}
	}
}

func TestErrorStep(t *testing.T) {
	every(t, func(t *testing.T, c *client) {
		c.user(`[{"error":{"status":429,"message":"slow down","times":2}},{"error":{"status":503,"times":1}},{"tool":"bash"},{"error":{"status":400,"message":"no more"}}]`)
		for _, want := range []int{429, 429, 503} {
			if got := c.ask(); got.Status != want {
				t.Fatalf("status %d, want %d", got.Status, want)
			}
		}
		got := c.ask()
		if len(got.Calls) != 1 {
			t.Fatalf("after the refusals: %+v", got)
		}
		c.result(got.Calls[0], "ok")
		for range 3 {
			if got := c.ask(); got.Status != 400 || got.Err != "no more" {
				t.Fatalf("got %+v", got)
			}
		}
	})
}

func TestErrorBreaksAStreamOff(t *testing.T) {
	every(t, func(t *testing.T, c *client) {
		c.user(`[{"text":"half of"},{"error":{"message":"cut"}}]`)
		got := c.ask()
		if got.Err != "cut" {
			t.Errorf("got %+v", got)
		}
		if want := map[bool]int{true: 200, false: 500}[c.stream]; got.Status != want {
			t.Errorf("status %d, want %d", got.Status, want)
		}
	})
}

func TestDelayWaitsAndEndsWithTheClient(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := scriptmodel.New(scriptmodel.Options{})
		body := `{"stream":true,"messages":[{"role":"user","content":"[{\"delay\":\"9m\"},{\"text\":\"late\"}]"}]}`
		begin := time.Now()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("POST", "/chat/completions", strings.NewReader(body)))
		if got := time.Since(begin); got != 9*time.Minute || !strings.Contains(w.Body.String(), "late") {
			t.Errorf("after %v: %s", got, w.Body)
		}
		begin = time.Now()
		req := httptest.NewRequest("POST", "/chat/completions", strings.NewReader(body))
		ctx, cancel := contextWithTimeout(t, time.Minute)
		defer cancel()
		w = httptest.NewRecorder()
		h.ServeHTTP(w, req.WithContext(ctx))
		if got := time.Since(begin); got != time.Minute || strings.Contains(w.Body.String(), "late") {
			t.Errorf("the client left after a minute, the model after %v", got)
		}
	})
}

func TestArgumentsComeInPieces(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"chat", "responses"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(rt *rapid.T) {
				text := rapid.String().Draw(rt, "text")
				c := newClient(t, protocol, true)
				script := mustJSON([]any{map[string]any{"tool": "write", "args": map[string]any{"content": strings.ReplaceAll(text, "{{", "{")}}})
				c.user("```tongs-script\n" + strings.ReplaceAll(script, "```", "") + "\n```")
				if strings.Contains(script, "```") {
					rt.Skip("a fence in the text")
				}
				got := c.ask()
				if len(got.Calls) != 1 || got.Calls[0].Args["content"] != strings.ReplaceAll(text, "{{", "{") {
					rt.Fatalf("got %+v", got)
				}
			})
			c := newClient(t, protocol, true)
			c.user(mustJSON([]any{map[string]any{"tool": "write", "args": map[string]any{"content": strings.Repeat("žluť", 3000)}}}))
			if got := c.ask(); got.Pieces < 10 || got.Pieces > 100 {
				t.Errorf("%d pieces", got.Pieces)
			}
		})
	}
}

func TestAttachmentBehindAToolResultIsNoPrompt(t *testing.T) {
	t.Parallel()
	c := newClient(t, "chat", true)
	c.user(`[{"tool":"read"},{"text":"still here"}]`)
	c.result(c.ask().Calls[0], "Image read successfully")
	c.items = append(c.items, map[string]any{"role": "user", "content": []any{
		map[string]any{"type": "text", "text": "Attached media from tool result:"},
		map[string]any{"type": "image_url", "image_url": map[string]any{"url": "data:image/png;base64,AAAA"}},
	}})
	if got := c.ask(); got.Text != "still here" {
		t.Errorf("said %q", got.Text)
	}
}

func TestRequestsThatAreWrong(t *testing.T) {
	t.Parallel()
	h := scriptmodel.New(scriptmodel.Options{MaxBody: 1000})
	for _, tc := range []struct {
		method, path, body string
		status             int
		message            string
	}{
		{"POST", "/v1/chat/completions", `{`, 400, "not a chat completion"},
		{"POST", "/v1/chat/completions", `{"messages":[]}`, 400, "messages is empty"},
		{"POST", "/v1/chat/completions", `{"messages":[{"role":"king"}]}`, 400, "unknown role"},
		{"POST", "/v1/responses", `[]`, 400, "not a responses request"},
		{"POST", "/v1/responses", `{"input":3}`, 400, "input is neither"},
		{"POST", "/v1/responses", `{"input":[]}`, 400, "input is empty"},
		{"POST", "/v1/responses", `{"input":[{"role":"king"}]}`, 400, "unknown role"},
		{"POST", "/v1/responses", strings.Repeat(" ", 2000), 413, "larger than 1000"},
		{"GET", "/v1/responses", "", 405, "use POST"},
		{"POST", "/v1/models", "", 405, "use GET"},
		{"GET", "/v1/models/gpt-4", "", 404, "no such model"},
		{"POST", "/v1/completions", "", 404, "no such route"},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(tc.method, tc.path, strings.NewReader(tc.body)))
		if w.Code != tc.status || !strings.Contains(w.Body.String(), tc.message) {
			t.Errorf("%s %s %q: %d %s, want %d %q", tc.method, tc.path, clip(tc.body), w.Code, w.Body, tc.status, tc.message)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/openai/v1/models", nil))
	for _, id := range []string{`"scripted"`, `"gpt-5-scripted"`, `"claude-scripted"`} {
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), id) {
			t.Errorf("/models: %d %s lacks %s", w.Code, w.Body, id)
		}
	}
}

func TestResponsesInputMayBeAText(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	scriptmodel.New(scriptmodel.Options{}).ServeHTTP(w, httptest.NewRequest("POST", "/responses", strings.NewReader(`{"input":"[{\"text\":\"hi there\"}]"}`)))
	if !strings.Contains(w.Body.String(), "hi there") {
		t.Errorf("got %s", w.Body)
	}
}

func FuzzRequest(f *testing.F) {
	f.Add("/chat/completions", `{"stream":true,"messages":[{"role":"user","content":"[{\"text\":\"{{prompt /a(.)/}}\"}]"}]}`)
	f.Add("/chat/completions", `{"messages":[{"role":"user","content":[{"type":"text","text":"`+"```tongs-script"+`"}]},{"role":"tool","content":"x"}],"tools":[{"function":{"name":"bash"}}]}`)
	f.Add("/responses", `{"stream":true,"input":[{"role":"user","content":"random number"},{"type":"reasoning"},{"type":"function_call_output","output":"7"}],"tools":[{"name":"bash"}]}`)
	f.Add("/responses", `{"input":"\"[{\\\"tool\\\":\\\"a\\\"}]\""}`)
	h := scriptmodel.New(scriptmodel.Options{})
	f.Fuzz(func(t *testing.T, path, body string) {
		if strings.Contains(body, "delay") || !strings.HasPrefix(path, "/") || strings.ContainsAny(path, " \x00\r\n?#%\x7f") {
			t.Skip()
		}
		ctx, cancel := contextWithTimeout(t, 10*time.Second)
		defer cancel()
		req := httptest.NewRequest("POST", "http://model/", strings.NewReader(body)).WithContext(ctx)
		req.URL.Path = path
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		if w.Code < 200 || w.Code > 599 {
			t.Errorf("status %d", w.Code)
		}
	})
}
