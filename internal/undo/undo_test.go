package undo_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/tongs-dev/tongs/internal/undo"
	"github.com/tongs-dev/tongs/sandbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// openCode answers with what a test says, by "METHOD /path", and keeps what it was asked to do.
type openCode struct {
	answers map[string]string // "409 {…}" for another status than 200
	mu      sync.Mutex
	done    []string // requests that are no GET
}

func (o *openCode) RoundTrip(r *http.Request) (*http.Response, error) {
	what := r.Method + " " + r.URL.Path
	if r.Method != http.MethodGet {
		var body []byte
		var err error
		if r.Body != nil {
			body, err = io.ReadAll(r.Body)
		}
		if err != nil {
			return nil, err
		}
		o.mu.Lock()
		o.done = append(o.done, what+" "+string(body))
		o.mu.Unlock()
	}
	text, ok := o.answers[what]
	status := http.StatusOK
	switch {
	case !ok:
		status, text = http.StatusNotFound, `{"name":"NotFoundError"}`
	case strings.HasPrefix(text, "409 "):
		status, text = http.StatusConflict, text[4:]
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(text)), Request: r}, nil
}

// front is a manager's handlers over an OpenCode. The sessions' sandboxes can't be reached.
func front(t *testing.T, o *openCode, exists bool, fork func(context.Context, string, func(context.Context) (string, error)) (string, error)) http.Handler {
	t.Helper()
	m := undo.New(undo.Config{
		Root:    func(_ context.Context, id string) (string, error) { return id, nil },
		Sandbox: func(context.Context, string) (*sandbox.Client, error) { return nil, errors.New("no sandbox today") },
		Exists:  func(string) bool { return exists }, Fork: fork, OpenCode: o, URL: "http://opencode", Project: "/home/user/project", Home: "/home/user",
	})
	t.Cleanup(m.Close)
	mux := http.NewServeMux()
	for pattern, h := range m.Answers() {
		mux.Handle(pattern, h)
	}
	return mux
}

func ask(h http.Handler, method, path, body string) (int, string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
	return w.Code, w.Body.String()
}

const conversation = `[{"info":{"id":"msg_1","role":"user"},"parts":[]},
{"info":{"id":"msg_2","role":"assistant","parentID":"msg_1"},"parts":[{"id":"prt_1","type":"tool","tool":"bash","state":{"status":"completed"}}]},
{"info":{"id":"msg_3","role":"user"},"parts":[]},{"info":{"id":"msg_4","role":"assistant","parentID":"msg_3"},"parts":[{"id":"prt_2","type":"text"}]}]`

func newOpenCode() *openCode {
	return &openCode{answers: map[string]string{
		"GET /session/status": `{}`, "GET /session/ses_a": `{"id":"ses_a"}`, "GET /session/ses_a/message": conversation,
		"POST /session/ses_a/revert": `{"id":"ses_a","revert":{"messageID":"msg_1"}}`, "POST /session/ses_a/unrevert": `{"id":"ses_a"}`,
		"POST /session/ses_a/fork": `{"id":"ses_b"}`, "DELETE /session/ses_b": "true",
	}}
}

// TestConversationAlone holds that a session without a sandbox is OpenCode's alone.
func TestConversationAlone(t *testing.T) {
	t.Parallel()
	o := newOpenCode()
	fork := func(ctx context.Context, from string, begin func(context.Context) (string, error)) (string, error) {
		return begin(ctx)
	}
	h := front(t, o, false, fork)
	for _, test := range []struct{ method, path, body, want string }{
		{"POST", "/session/ses_a/revert", `{"messageID":"msg_1"}`, `"revert"`},
		{"POST", "/session/ses_a/unrevert", ``, `"ses_a"`},
		{"POST", "/session/ses_a/fork", `{"messageID":"msg_3"}`, `"ses_b"`},
		{"POST", "/session/ses_a/fork", ``, `"ses_b"`},
		{"GET", "/session/ses_a", ``, `"ses_a"`},
		{"GET", "/session/ses_a/diff?messageID=msg_1", ``, `[]`},
	} {
		if status, body := ask(h, test.method, test.path, test.body); status != 200 || !strings.Contains(body, test.want) {
			t.Errorf("%s %s: %d %s", test.method, test.path, status, body)
		}
	}
	want := []string{`POST /session/ses_a/revert {"messageID":"msg_1"}`, `POST /session/ses_a/unrevert {}`, `POST /session/ses_a/fork {"messageID":"msg_3"}`, `POST /session/ses_a/fork {}`}
	if !slices.Equal(o.done, want) {
		t.Errorf("%q", o.done)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	copies := errors.New("the disk is full")
	for name, test := range map[string]struct {
		change             func(o *openCode)
		method, path, body string
		status             int
		text               string
		done               []string
	}{
		"busy":                     {change: func(o *openCode) { o.answers["GET /session/status"] = `{"ses_a":{"type":"busy"}}` }, path: "revert", body: `{"messageID":"msg_1"}`, status: 409, text: "Session is busy"},
		"busy, redo":               {change: func(o *openCode) { o.answers["GET /session/status"] = `{"ses_a":{"type":"retry"}}` }, path: "unrevert", status: 409, text: "Session is busy"},
		"no message named":         {path: "revert", body: `{}`, status: 400, text: "messageID"},
		"no JSON":                  {path: "revert", body: `{`, status: 400, text: "BAD_BODY"},
		"too long":                 {path: "fork", body: strings.Repeat(" ", 70<<10), status: 400, text: "too long"},
		"OpenCode refuses":         {change: func(o *openCode) { o.answers["GET /session/ses_a/message"] = `409 {"name":"Its"}` }, path: "revert", body: `{"messageID":"msg_1"}`, status: 409, text: `"Its"`},
		"files can't be reached":   {path: "revert", body: `{"messageID":"msg_1"}`, status: 502, text: "no sandbox today"},
		"a fork without its files": {path: "fork", body: `{}`, status: 502, text: "no sandbox today"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOpenCode()
			if test.change != nil {
				test.change(o)
			}
			h := front(t, o, true, func(ctx context.Context, _ string, begin func(context.Context) (string, error)) (string, error) {
				id, err := begin(ctx)
				return id, errors.Join(err, copies)
			})
			status, body := ask(h, "POST", "/session/ses_a/"+test.path, test.body)
			if status != test.status || !strings.Contains(body, test.text) {
				t.Errorf("%d %s", status, body)
			}
			if !json.Valid([]byte(body)) || !slices.Equal(o.done, test.done) {
				t.Errorf("%q, %s", o.done, body)
			}
		})
	}
}

// TestForkThatFails holds that there is no new session when its files can't be copied.
func TestForkThatFails(t *testing.T) {
	t.Parallel()
	o := newOpenCode()
	h := front(t, o, false, func(ctx context.Context, _ string, begin func(context.Context) (string, error)) (string, error) {
		id, err := begin(ctx)
		return id, errors.Join(err, sandbox.Errf(sandbox.CodeNoSpace, "copy", "the disk is full", ""))
	})
	if status, body := ask(h, "POST", "/session/ses_a/fork", `{}`); status == 200 || !strings.Contains(body, "the disk is full") {
		t.Errorf("%d %s", status, body)
	}
	if want := []string{`POST /session/ses_a/fork {}`, `DELETE /session/ses_b `}; !slices.Equal(o.done, want) {
		t.Errorf("%q", o.done)
	}
}
