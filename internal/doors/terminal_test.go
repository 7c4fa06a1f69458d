package doors_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"

	"github.com/tongs-dev/tongs/internal/doors"
	"github.com/tongs-dev/tongs/internal/gateway"
)

// screen is one viewer of a terminal.
type screen struct {
	t    testing.TB
	conn *websocket.Conn
	ctx  context.Context
	text strings.Builder
	meta []string // binary messages
}

func (p *person) connect(path string) (*screen, *http.Response, error) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	p.t.Cleanup(cancel)
	conn, resp, err := websocket.Dial(ctx, strings.Replace(p.url, "http", "ws", 1)+path, &websocket.DialOptions{HTTPHeader: p.header, HTTPClient: p.client})
	if err != nil {
		return nil, resp, err
	}
	conn.SetReadLimit(8 << 20)
	p.t.Cleanup(func() { conn.CloseNow() })
	return &screen{t: p.t, conn: conn, ctx: ctx}, resp, nil
}

func (p *person) watch(path string) *screen {
	p.t.Helper()
	s, _, err := p.connect(path)
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

func (s *screen) types(text string) {
	s.t.Helper()
	if err := s.conn.Write(s.ctx, websocket.MessageText, []byte(text)); err != nil {
		s.t.Fatal(err)
	}
}

// until reads until the text has been shown.
func (s *screen) until(text string) {
	s.t.Helper()
	for !strings.Contains(s.text.String(), text) {
		kind, data, err := s.conn.Read(s.ctx)
		if err != nil {
			s.t.Fatalf("%v; it shows %q", err, s.text.String())
		}
		if kind == websocket.MessageBinary {
			s.meta = append(s.meta, string(data))
		} else {
			s.text.Write(data)
		}
	}
}

// end reads to the end and returns the code with which it came.
func (s *screen) end() websocket.StatusCode {
	s.t.Helper()
	for {
		kind, data, err := s.conn.Read(s.ctx)
		if err != nil {
			return websocket.CloseStatus(err)
		}
		if kind == websocket.MessageText {
			s.text.Write(data)
		}
	}
}

type pty struct {
	ID, Title, Command, Cwd, Status string
	Args                            []string
	PID                             int
}

func (p *person) terminal(body string) pty {
	p.t.Helper()
	status, text, _ := p.do("POST", "/pty", body)
	var made pty
	if err := json.Unmarshal([]byte(text), &made); err != nil || status != 200 {
		p.t.Fatalf("POST /pty: %d %s", status, text)
	}
	return made
}

// TestTerminalSameAsOpenCode does the same with a terminal here and one of the real OpenCode.
func TestTerminalSameAsOpenCode(t *testing.T) {
	t.Parallel()
	project := newProject(t)
	w := newWorld(t, project)
	w.session("ses_a", newBox(t, project))
	here := w.person("X-Tongs-Session", "ses_a")
	real := &person{t: t, url: startOpenCode(t, project), client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}, header: http.Header{}}

	// events collects those about terminals, by the id.
	events := func(p *person) (of func(id string) []string) {
		ctx, cancel := context.WithCancel(context.Background())
		t.Cleanup(cancel)
		req, err := http.NewRequestWithContext(ctx, "GET", p.url+"/event", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := (&http.Client{Transport: p.client.Transport}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		got := map[string][]string{}
		done := make(chan struct{})
		t.Cleanup(func() { cancel(); resp.Body.Close(); <-done })
		go func() {
			defer close(done)
			for sc := bufio.NewScanner(resp.Body); sc.Scan(); {
				var e struct {
					Type       string
					Properties struct {
						ID       string
						ExitCode *int
						Info     pty
					}
				}
				data, ok := strings.CutPrefix(sc.Text(), "data: ")
				if !ok || json.Unmarshal([]byte(data), &e) != nil || !strings.HasPrefix(e.Type, "pty.") {
					continue
				}
				line := e.Type + " " + e.Properties.Info.Title
				if e.Properties.ExitCode != nil {
					line += fmt.Sprint(*e.Properties.ExitCode)
				}
				mu.Lock()
				id := e.Properties.ID + e.Properties.Info.ID
				got[id] = append(got[id], line)
				mu.Unlock()
			}
		}()
		return func(id string) []string {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(got[id])
		}
	}

	// record is all that a person sees, without what is another one each time.
	record := func(p *person) []string {
		var seen []string
		note := func(format string, v ...any) { seen = append(seen, fmt.Sprintf(format, v...)) }
		told := events(p)
		sh := p.terminal(`{"command":"/bin/sh","args":["-c","read x; echo \"got <$x> $TERM $OPENCODE_TERMINAL $MINE $PWD\"; stty size; exec sh"],"title":"one","env":{"MINE":"mine"}}`)
		show := func(i pty) string {
			if !strings.HasPrefix(i.ID, "pty_") || i.PID <= 0 {
				t.Errorf("%+v", i)
			}
			i.ID, i.PID = "", 0
			return fmt.Sprintf("%+v", i)
		}
		note("made %s", show(sh))
		plain := p.terminal(`{}`)
		note("title %v, %s %q", plain.Title == "Terminal "+plain.ID[len(plain.ID)-4:], filepath.Base(plain.Command), plain.Args)
		var list []pty
		p.get("/pty", &list)
		note("%d are listed", len(list))

		status, body, _ := p.do("PUT", "/pty/"+sh.ID, `{"title":"two","size":{"rows":33,"cols":101}}`)
		var updated pty
		_ = json.Unmarshal([]byte(body), &updated)
		note("updated %d %s", status, show(updated))

		a := p.watch("/pty/" + sh.ID + "/connect")
		a.types("hé\n")
		a.until("33 101")
		note("shown %q", a.text.String()[strings.Index(a.text.String(), "got"):][:len("got <h\u00e9> xterm-256color 1 mine "+project)])
		b := p.watch("/pty/" + sh.ID + "/connect?cursor=0")
		b.until("33 101")
		note("replay begins the same: %v", strings.HasPrefix(a.text.String(), b.text.String()[:20]))
		late := p.watch("/pty/" + sh.ID + "/connect?cursor=-1")
		a.types("printf '\\360\\237\\230\\200'; echo; echo m$((40+2))\n")
		late.until("m42\r\n")
		a.until("m42\r\n")
		note("late one has seen no more than what came after: %v", !strings.Contains(late.text.String(), "got <"))
		note("first binary message %q", strings.TrimRight(late.meta[0], "0123456789}"))

		// The cursor of one viewer is where another goes on.
		var meta struct{ Cursor int }
		full := p.watch("/pty/" + sh.ID + "/connect?cursor=0")
		full.until("m42\r\n")
		for len(full.meta) == 0 {
			kind, data, err := full.conn.Read(full.ctx)
			if err != nil {
				t.Fatal(err)
			}
			if kind == websocket.MessageBinary {
				full.meta = append(full.meta, string(data))
			}
		}
		_ = json.Unmarshal([]byte(full.meta[0][1:]), &meta)
		units := 0
		for _, r := range full.text.String() {
			units++
			if r > 0xFFFF {
				units++
			}
		}
		note("the cursor counts UTF-16: %v", units == meta.Cursor)
		from := p.watch(fmt.Sprintf("/pty/%s/connect?cursor=%d", sh.ID, strings.Index(full.text.String(), "got")-1))
		from.until("m42\r\n")
		note("from a cursor: %q", from.text.String()[:4])
		b.types("exit\n")
		note("ends with %d", a.end())

		// Tickets.
		status, body, _ = p.do("POST", "/pty/"+plain.ID+"/connect-token", "")
		note("without the header %d %s", status, body)
		status, body, _ = p.do("POST", "/pty/"+plain.ID+"/connect-token", "", "X-Opencode-Ticket", "1")
		var ticket struct {
			Ticket  string
			Expires int `json:"expires_in"`
		}
		_ = json.Unmarshal([]byte(body), &ticket)
		note("ticket %d %v %d", status, len(ticket.Ticket) >= 32, ticket.Expires)
		p.watch("/pty/" + plain.ID + "/connect?ticket=" + ticket.Ticket).conn.CloseNow()
		_, resp, err := p.connect("/pty/" + plain.ID + "/connect?ticket=" + ticket.Ticket)
		note("used again %v %d", err != nil, resp.StatusCode)

		status, body, _ = p.do("DELETE", "/pty/"+plain.ID, "")
		note("removed %d %s", status, body)
		for _, id := range []string{plain.ID, sh.ID} {
			for _, m := range []string{"GET", "PUT", "DELETE"} {
				status, body, _ = p.do(m, "/pty/"+id, "{}")
				note("%s %d %s", m, status, strings.ReplaceAll(body, id, "ID"))
			}
			_, resp, err = p.connect("/pty/" + id + "/connect")
			note("connect %v %d", err != nil, resp.StatusCode)
		}
		p.get("/pty", &list)
		note("%d are listed", len(list))
		eventually(t, "the events", func() bool { return len(told(sh.ID)) >= 3 && len(told(plain.ID)) >= 2 })
		note("told %q", told(sh.ID))
		// What is removed may also be told to have exited.
		note("told %v", told(plain.ID)[0][:11] == "pty.created" && slices.Contains(told(plain.ID), "pty.deleted "))
		return seen
	}
	want, got := record(real), record(here)
	for _, seen := range [][]string{want, got} {
		for n, line := range seen { // members in one order
			var v any
			if i := strings.IndexByte(line, '{'); i > 0 && json.Unmarshal([]byte(line[i:]), &v) == nil {
				text, err := json.Marshal(v)
				if err != nil {
					t.Fatal(err)
				}
				seen[n] = line[:i] + string(text)
			}
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-OpenCode +here) %s", d)
	}
}

func TestTerminalOfNoSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "/home/user/project")
	p := w.person()
	status, body, _ := p.do("POST", "/pty", "{}")
	if status != 409 || !strings.Contains(body, "NO_SESSION") {
		t.Errorf("%d %s", status, body)
	}
	if status, body, _ = p.do("GET", "/pty", ""); status != 200 || body != "[]" {
		t.Errorf("%d %s", status, body)
	}
	if status, body, _ = p.do("GET", "/pty/shells", ""); status != 200 || body != "[]" {
		t.Errorf("%d %s", status, body)
	}
	if status, body, _ = p.do("POST", "/vcs/apply", `{"patch":"x"}`); status != 409 {
		t.Errorf("%d %s", status, body)
	}
}

func TestTerminalBadInput(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := newWorld(t, dir)
	w.session("ses_a", newBox(t, dir))
	p := w.person("X-Tongs-Session", "ses_a")
	long := strings.Repeat("x", 2000)
	for _, body := range []string{
		`{"command":"/no/such"}`, `{"command":"sh","cwd":"/no/such"}`, `{"command":7}`, `[]`, `{"title":"` + long + `"}`, `{"command":"a\u0000b"}`, `{"env":{"A=B":"x"}}`, `{"cwd":"a\u0000"}`, `{`,
	} {
		if status, text, _ := p.do("POST", "/pty", body); status != 400 {
			t.Errorf("%.60s: %d %s", body, status, text)
		}
	}
	one := p.terminal(`{"command":"cat"}`)
	for _, body := range []string{`{"size":{"rows":0,"cols":1}}`, `{"size":{"rows":1,"cols":70000}}`, `{"size":[]}`, `{"title":"` + long + `"}`} {
		if status, text, _ := p.do("PUT", "/pty/"+one.ID, body); status != 400 {
			t.Errorf("%.60s: %d %s", body, status, text)
		}
	}
	if status, _, _ := p.do("GET", "/pty/"+one.ID+"/connect", ""); status != 400 {
		t.Errorf("a connection that is no WebSocket: %d", status)
	}
	// Too many of them.
	for range 31 {
		p.terminal(`{"command":"cat"}`)
	}
	if status, text, _ := p.do("POST", "/pty", `{"command":"cat"}`); status != 429 {
		t.Errorf("%d %s", status, text)
	}
}

// TestTerminalOutlivesTheHost opens a terminal by one host and uses it by the next.
func TestTerminalOutlivesTheHost(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	box := newBox(t, dir)
	first := newWorld(t, dir)
	first.session("ses_a", box)
	made := first.person("X-Tongs-Session", "ses_a").terminal(`{"command":"sh","title":"kept"}`)
	s := first.person("X-Tongs-Session", "ses_a").watch("/pty/" + made.ID + "/connect")
	s.types("echo be$((1+1))fore\n")
	s.until("be2fore\r\n")
	first.doors.Close()

	second := newWorld(t, dir)
	second.session("ses_a", box)
	second.session("ses_b", newBox(t, dir))
	p := second.person("X-Tongs-Session", "ses_a")
	var list []pty
	p.get("/pty", &list)
	if len(list) != 1 || list[0].ID != made.ID || list[0].Title != "kept" {
		t.Fatalf("%+v", list)
	}
	again := p.watch("/pty/" + made.ID + "/connect")
	again.until("be2fore\r\n")
	again.types("exit\n")
	if code := again.end(); code != websocket.StatusNormalClosure {
		t.Errorf("ended with %d", code)
	}
	second.person("X-Tongs-Session", "ses_b").get("/pty", &list)
	if len(list) != 0 {
		t.Errorf("another session has %+v", list)
	}
}

// TestTerminalWhoseConnectionBreaks is there again when its sandbox is.
func TestTerminalWhoseConnectionBreaks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	box := newBox(t, dir)
	w := newWorld(t, dir)
	w.session("ses_a", box)
	p := w.person("X-Tongs-Session", "ses_a")
	made := p.terminal(`{"command":"sh"}`)
	s := p.watch("/pty/" + made.ID + "/connect")
	s.types("x=ke; echo be$((1+1))fore\n")
	s.until("be2fore\r\n")
	w.session("ses_a", again(t, box))
	box.Close()
	if code := s.end(); code != websocket.StatusTryAgainLater {
		t.Errorf("it ended with %d", code)
	}
	// By its id alone, as a browser asks.
	next := w.person().watch("/pty/" + made.ID + "/connect")
	next.until("be2fore\r\n")
	next.types("echo ${x}pt\n")
	next.until("kept\r\n")
}

// TestTerminalSlowViewer lets one viewer read nothing: the terminal and the others go on.
func TestTerminalSlowViewer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := newWorld(t, dir)
	w.session("ses_a", newBox(t, dir))
	p := w.person("X-Tongs-Session", "ses_a")
	made := p.terminal(`{"command":"sh","args":["-c","read x; head -c 30000000 /dev/zero | tr '\\0' x; echo; echo all-done; read y"]}`)
	p.watch("/pty/" + made.ID + "/connect") // reads nothing
	s := p.watch("/pty/" + made.ID + "/connect")
	s.types("\n")
	tail := p.watch("/pty/" + made.ID + "/connect?cursor=-1")
	deadline := time.Now().Add(time.Minute)
	for !strings.Contains(tail.text.String(), "all-done") {
		if time.Now().After(deadline) {
			t.Fatal("the terminal stands still")
		}
		kind, data, err := tail.conn.Read(tail.ctx)
		if err != nil { // it was too slow itself, and comes again
			if websocket.CloseStatus(err) != websocket.StatusTryAgainLater {
				t.Fatal(err)
			}
			tail = p.watch("/pty/" + made.ID + "/connect")
			continue
		}
		if kind == websocket.MessageText {
			tail.text.Reset()
			tail.text.Write(data)
		}
	}
	if status, body, _ := p.do("DELETE", "/pty/"+made.ID, ""); status != 200 {
		t.Errorf("%d %s", status, body)
	}
}

// TestTicketNeedsNoPassword: a browser cannot give a WebSocket the password.
func TestTicketNeedsNoPassword(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := newWorld(t, dir, func(g *gateway.Config, _ *doors.Config) { g.Password = "secret" })
	w.session("ses_a", newBox(t, dir))
	p := w.person("X-Tongs-Session", "ses_a", "Authorization", "Basic b3BlbmNvZGU6c2VjcmV0")
	made, other := p.terminal(`{"command":"cat"}`), p.terminal(`{"command":"cat"}`)
	_, body, _ := p.do("POST", "/pty/"+made.ID+"/connect-token", "", "X-Opencode-Ticket", "1")
	var ticket struct{ Ticket string }
	if err := json.Unmarshal([]byte(body), &ticket); err != nil {
		t.Fatal(body)
	}
	browser := w.person()
	for _, path := range []string{"/pty/" + made.ID + "/connect", "/pty/" + made.ID + "/connect?ticket=x", "/pty/" + other.ID + "/connect?ticket=" + ticket.Ticket, "/pty?ticket=" + ticket.Ticket} {
		if status, _, _ := browser.do("GET", path, ""); status != 401 {
			t.Errorf("%s without a password: %d", strings.ReplaceAll(path, ticket.Ticket, "T"), status)
		}
	}
	s := browser.watch("/pty/" + made.ID + "/connect?ticket=" + ticket.Ticket)
	s.types("hi\n")
	s.until("hi\r\nhi\r\n")
	if status, _, _ := browser.do("GET", "/pty/"+made.ID+"/connect?ticket="+ticket.Ticket, ""); status != 401 {
		t.Errorf("a used ticket: %d", status)
	}
}

// TestForeignPageGetsNoTerminal: the front's gate stands before WebSockets too.
func TestForeignPageGetsNoTerminal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := newWorld(t, dir)
	w.session("ses_a", newBox(t, dir))
	made := w.person("X-Tongs-Session", "ses_a").terminal(`{"command":"cat"}`)
	page := w.person("Origin", "https://evil.example")
	if _, resp, err := page.connect("/pty/" + made.ID + "/connect"); err == nil || resp.StatusCode != 403 {
		t.Errorf("%v %v", resp, err)
	}
}
