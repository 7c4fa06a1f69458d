package doors

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"

	"github.com/tongs-dev/tongs/internal/gateway"
)

// Bounds of one viewer of a terminal.
const (
	maxTickets    = 10_000
	ticketTime    = 60 * time.Second
	maxInput      = 1 << 20          // bytes of one message of a viewer's
	chunk         = 64 << 10         // bytes of one message to a viewer
	viewerTimeout = 30 * time.Second // for a viewer to take a message
	maxViewers    = 64               // of one terminal
)

// ticket opens one connection to one terminal without a password.
type ticket struct {
	terminal string
	expires  time.Time
}

// issueTicket answers POST /pty/{ptyID}/connect-token.
func (d *Doors) issueTicket(a *asked) (any, error) {
	id := a.PathValue("ptyID")
	if a.Header.Get("X-Opencode-Ticket") != "1" {
		return nil, &gateway.Error{Status: http.StatusForbidden, Tag: "PtyForbiddenError", Message: "Invalid PTY connect token request"}
	}
	if _, err := d.find(a, id); err != nil {
		return nil, err
	}
	var b [16]byte
	rand.Read(b[:])
	name := hex.EncodeToString(b[:])
	ts := d.terminals
	ts.mu.Lock()
	defer ts.mu.Unlock()
	now := time.Now()
	for k, t := range ts.tickets {
		if now.After(t.expires) {
			delete(ts.tickets, k)
		}
	}
	if len(ts.tickets) >= maxTickets {
		return nil, &gateway.Error{Status: http.StatusServiceUnavailable, Code: "TOO_MANY_TICKETS", Message: "too many tickets are open", Hint: "try again in a minute", Retry: ticketTime}
	}
	ts.tickets[name] = ticket{id, now.Add(ticketTime)}
	return map[string]any{"ticket": name, "expires_in": int(ticketTime / time.Second)}, nil
}

// Ticket says that a request has a ticket for the terminal that it wants to connect to.
// It stays good for the handler, which takes it.
func (d *Doors) Ticket(r *http.Request) bool {
	name := r.URL.Query().Get("ticket")
	if name == "" || r.Method != http.MethodGet {
		return false
	}
	d.terminals.mu.Lock()
	defer d.terminals.mu.Unlock()
	t, ok := d.terminals.tickets[name]
	return ok && time.Now().Before(t.expires) && r.URL.Path == "/pty/"+t.terminal+"/connect"
}

// take uses a ticket up.
func (ts *terminals) take(name, id string) bool {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	t, ok := ts.tickets[name]
	delete(ts.tickets, name)
	return ok && time.Now().Before(t.expires) && t.terminal == id
}

// connectTerminal answers GET /pty/{ptyID}/connect, a WebSocket: texts are what the
// terminal prints and what is typed; one binary message, a zero byte and
// {"cursor": n}, comes behind what had been printed before.
func (d *Doors) connectTerminal(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), d.cfg.Timeout)
	defer cancel()
	id := r.PathValue("ptyID")
	if name := r.URL.Query().Get("ticket"); r.URL.Query().Has("ticket") && !d.terminals.take(name, id) {
		d.refuse(w, r, &gateway.Error{Status: http.StatusForbidden, Code: "BAD_TICKET", Message: "the ticket is unknown, used or older than a minute", Hint: "ask for another by POST /pty/{ptyID}/connect-token"})
		return
	}
	a := &asked{Request: r, ctx: ctx, header: w.Header()}
	var err error
	var t *terminal
	if t, err = d.find(a, id); err != nil { // known here; else among those of the client's session
		if a.box, a.session, err = d.which(ctx, r); err == nil {
			t, err = d.find(a, id)
		}
	}
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	cursor := int64(0)
	if s := r.URL.Query().Get("cursor"); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		switch {
		case err != nil || n < -1:
		case n == -1:
			cursor = t.cursor()
		default:
			cursor = n
		}
	}
	if r.Header.Get("Upgrade") == "" {
		d.refuse(w, r, badInput("a terminal is connected to by a WebSocket", "send the headers of one"))
		return
	}
	// The gateway has checked the origin already.
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true, CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return // Accept has answered
	}
	defer conn.CloseNow()
	conn.SetReadLimit(maxInput)
	cancel()
	d.view(r.Context(), conn, t, cursor)
}

// view shows a terminal to one viewer until one of the two ends.
func (d *Doors) view(ctx context.Context, conn *websocket.Conn, t *terminal, cursor int64) {
	ctx, cancel := context.WithCancel(ctx)
	var typing sync.WaitGroup
	defer typing.Wait()
	defer cancel()
	typing.Go(func() {
		defer cancel()
		for {
			kind, data, err := conn.Read(ctx)
			if err != nil {
				return
			}
			if kind == websocket.MessageBinary && !utf8.Valid(data) {
				continue
			}
			if err := t.typed(ctx, data); err != nil {
				d.log.Debug("what was typed was not read", "terminal", t.id, "error", err)
			}
		}
	})
	send := func(kind websocket.MessageType, data []byte) bool {
		ctx, cancel := context.WithTimeout(ctx, viewerTimeout)
		defer cancel()
		return conn.Write(ctx, kind, data) == nil
	}
	replay := t.cursor() // up to here, at least, it is what had been printed before
	cursor = min(cursor, replay)
	told := false
	for {
		if !told && cursor >= replay {
			meta, err := json.Marshal(map[string]int64{"cursor": cursor})
			if err != nil || !send(websocket.MessageBinary, append([]byte{0}, meta...)) {
				return
			}
			told = true
		}
		data, next, behind, ended, changed := t.from(cursor, chunk)
		if behind && told {
			// It reads more slowly than the terminal prints: it may come again with its cursor.
			_ = conn.Close(websocket.StatusTryAgainLater, "too slow")
			return
		}
		if len(data) > 0 {
			if !send(websocket.MessageText, data) {
				return
			}
			cursor = next
			continue
		}
		if ended && told {
			code, reason := websocket.StatusNormalClosure, ""
			if _, lost := d.terminals.lost(t.id); lost {
				code, reason = websocket.StatusTryAgainLater, "the connection to the sandbox broke"
			}
			_ = conn.Close(code, reason)
			return
		}
		if !told {
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// typed writes to the terminal. Viewers take turns, in whole messages.
func (t *terminal) typed(ctx context.Context, data []byte) error {
	ctx, cancel := context.WithTimeout(ctx, inputTimeout)
	defer cancel()
	select {
	case t.typing <- struct{}{}:
	case <-ctx.Done():
		return errNotRead
	}
	defer func() { <-t.typing }()
	if t.input == nil {
		life, end := context.WithCancel(t.life)
		stop := context.AfterFunc(ctx, end)
		in, err := t.box.Stdin(life, t.id)
		if !stop() || err != nil {
			end()
			return cmp.Or(err, errNotRead)
		}
		t.input, t.endInput = in, end
	}
	stop := context.AfterFunc(ctx, t.endInput) // input stays open for the next writer
	_, err := t.input.Write(data)
	if !stop() || err != nil {
		t.endInput()
		t.input = nil
		return cmp.Or(err, errNotRead)
	}
	return nil
}

var errNotRead = errors.New("the program in the terminal does not read what is typed")
