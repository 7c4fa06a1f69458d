package gateway_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestRefusalIsShownInClientsThatListen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pr, pw := io.Pipe()
		defer pw.Close()
		up := &upstream{answer: func(r *http.Request, _ []byte) *http.Response {
			if r.URL.Path == "/global/event" {
				return reply(200, "text/event-stream", pr)
			}
			return reply(200, "application/json", strings.NewReader("true"))
		}}
		h := front(t, up, nil)
		upgrade := func() { wantRefusal(t, ask(h, request("POST", "/global/upgrade", "{}")), 403, "REFUSED") }
		upgrade()
		if _, _, n := up.asked(); n != 0 {
			t.Error("a refusal was shown to nobody")
		}
		start(h, request("GET", "/global/event", ""))
		synctest.Wait()
		upgrade()
		last, body, n := up.asked()
		if n != 2 || last.URL.Path != "/tui/show-toast" || !strings.Contains(body, "operator") || last.Header.Get("X-Opencode-Directory") != "%2Fhome%2Fuser%2Fproject" {
			t.Errorf("asked %d times, %v %s", n, last.URL, body)
		}
		upgrade() // too soon
		wantRefusal(t, ask(h, request("GET", "/file", "")), 403, "REFUSED")
		if _, _, n := up.asked(); n != 2 {
			t.Errorf("asked %d times", n)
		}
		time.Sleep(2 * time.Second)
		wantRefusal(t, ask(h, request("POST", "/session/s/message", `{"parts":[{"type":"file","url":"file:///x"}]}`)), 400, "FILE_REFUSED")
		if _, body, n := up.asked(); n != 3 || !strings.Contains(body, "file part") {
			t.Errorf("asked %d times, %s", n, body)
		}
	})
}
