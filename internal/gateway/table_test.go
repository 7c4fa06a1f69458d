package gateway_test

import (
	"encoding/json"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/tongs-dev/tongs/internal/gateway"
)

// operations are those of the pinned OpenCode, "METHOD /path" each.
func operations(t testing.TB) []string {
	t.Helper()
	b, err := os.ReadFile("testdata/operations-1.18.33.txt")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			out = append(out, line)
		}
	}
	return out
}

// normal is an operation or a row without the names of its parameters.
func normal(s string) string {
	s = regexp.MustCompile(`/(\*|\{[^}]*\.\.\.\})$`).ReplaceAllString(s, "/REST")
	return regexp.MustCompile(`\{[^}]*\}`).ReplaceAllString(s, "{}")
}

func TestTableKnowsEveryOperation(t *testing.T) {
	t.Parallel()
	rows := map[string]bool{}
	for _, r := range gateway.Table() {
		rows[normal(r.Method+" "+r.Pattern)] = true
		if r.Reason == "" || len(r.Reason) < 10 {
			t.Errorf("%s %s has no reason", r.Method, r.Pattern)
		}
	}
	ops := operations(t)
	if len(ops) < 180 {
		t.Fatalf("only %d operations are known", len(ops))
	}
	for _, op := range ops {
		if !rows[normal(op)] {
			t.Errorf("%s has no row: decide about it in table.go", op)
		}
	}
}

// bodies are those that the checks want.
var bodies = map[string]string{
	"POST /session":                          `{}`,
	"PATCH /session/{sessionID}":             `{"title":"x"}`,
	"PATCH /project/{projectID}":             `{"icon":{"color":"blue"}}`,
	"POST /session/{sessionID}/message":      `{"parts":[{"type":"text","text":"hi"}]}`,
	"POST /session/{sessionID}/prompt_async": `{"parts":[{"type":"text","text":"hi"}]}`,
	"POST /session/{sessionID}/command":      `{"command":"init","arguments":""}`,
	"POST /session/{sessionID}/shell":        `{"command":"ls","agent":"build"}`,
}

func TestEveryRowDoesWhatItSays(t *testing.T) {
	t.Parallel()
	counts := map[string]int{}
	for _, row := range gateway.Table() {
		up := &upstream{}
		h := front(t, up, nil)
		key := row.Method + " " + row.Pattern
		path := regexp.MustCompile(`\{[^}]*\}`).ReplaceAllString(row.Pattern, "abc_1")
		r := request(row.Method, path, bodies[key])
		if strings.HasPrefix(row.Pattern, "/{page") {
			r.Header.Set("Accept", "text/html,*/*")
			path = "/"
		}
		w := ask(h, r)
		_, _, n := up.asked()
		counts[row.Action]++
		switch row.Action {
		case "pass":
			last, _, _ := up.asked()
			if w.Code != 200 || n != 1 || last.URL.Path != path || last.Method != row.Method {
				t.Errorf("%s: %d, asked %d times, %v %s", key, w.Code, n, last, w.Body)
			}
		case "refuse":
			got := wantRefusal(t, w, 403, "REFUSED")
			if n != 0 || !strings.Contains(got.Data.Message, row.Reason) {
				t.Errorf("%s: asked %d times, message %q", key, n, got.Data.Message)
			}
		case "answer":
			if w.Code != 200 || n != 0 || !json.Valid(w.Body.Bytes()) || w.Header().Get("Content-Type") != "application/json" {
				t.Errorf("%s: %d, asked %d times, %s", key, w.Code, n, w.Body)
			}
		default:
			t.Errorf("%s: action %q", key, row.Action)
		}
	}
	if counts["pass"] < 40 || counts["refuse"] < 80 || counts["answer"] < 10 {
		t.Errorf("the table has %v", counts)
	}
}

func TestUnknownRoutesAreShut(t *testing.T) {
	t.Parallel()
	for _, target := range []string{
		"GET /nothing", "GET /api", "GET /api/new", "POST /config", "DELETE /config", "OPTIONS /config", "TRACE /config",
		"GET /config/", "GET //config", "GET /Config", "GET /session/../config", "GET /./config", "GET /session/a/b/c/d",
		"GET /session/a%2Fb", "GET /session/a b", "GET /session/a;b", "GET /session/a\\b", "GET /session/\x00", "GET /session/é",
		"POST /session/abc/message/x", "GET /event/x", "HEAD /event", "GET /session/", "POST /", "CONNECT /", "GET /assets/../config",
		"GET /assets/", "GET /session/" + strings.Repeat("a", 3000),
	} {
		up := &upstream{}
		method, path, _ := strings.Cut(target, " ")
		r := request("GET", path, "")
		r.Method = method
		if strings.Contains(path, "%") {
			r.URL.RawPath = path
			r.URL.Path = strings.ReplaceAll(path, "%2F", "/")
		}
		w := ask(front(t, up, nil), r)
		wantRefusal(t, w, 403, "UNKNOWN_ROUTE")
		if _, _, n := up.asked(); n != 0 {
			t.Errorf("%.60s reached OpenCode", target)
		}
	}
}

func TestBrowserGetsThePageForItsOwnAddresses(t *testing.T) {
	t.Parallel()
	up := &upstream{}
	h := front(t, up, nil)
	r := request("GET", "/L2hvbWU/session/ses_1?directory=/etc", "")
	r.Header.Set("Accept", "text/html,application/xhtml+xml")
	r.Header.Set("Sec-Fetch-Mode", "navigate")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	if w := ask(h, r); w.Code != 200 {
		t.Fatalf("status %d %s", w.Code, w.Body)
	}
	if last, _, _ := up.asked(); last.URL.Path != "/" || last.URL.RawQuery != "" {
		t.Errorf("OpenCode was asked for %s", last.URL)
	}
	r.Header.Set("Sec-Fetch-Mode", "cors")
	wantRefusal(t, ask(h, r), 403, "UNKNOWN_ROUTE")
}

func TestAnswersReplaceRows(t *testing.T) {
	t.Parallel()
	up := &upstream{}
	h := front(t, up, func(c *gateway.Config) {
		c.Answers = map[string]http.Handler{"POST /session/{sessionID}/share": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			gateway.WriteError(w, &gateway.Error{Status: 400, Code: "SEEN", Message: r.PathValue("sessionID")})
		})}
	})
	got := wantRefusal(t, ask(h, request("POST", "/session/ses_7/share", `{}`)), 400, "SEEN")
	if got.Data.Message != "ses_7" {
		t.Errorf("path value %q", got.Data.Message)
	}
	foreign := request("POST", "/session/ses_7/share", `{}`)
	foreign.Host = "evil.example"
	wantRefusal(t, ask(h, foreign), 403, "FOREIGN_HOST")
	_, err := gateway.New(gateway.Config{Upstream: up, Listen: "127.0.0.1:1", Directory: "/x", Answers: map[string]http.Handler{"GET /nope": http.NotFoundHandler()}})
	if err == nil || !strings.Contains(err.Error(), "GET /nope") {
		t.Errorf("an answer for no row: %v", err)
	}
}
