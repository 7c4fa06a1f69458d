package doors

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/tongs-dev/tongs/internal/gateway"
	"github.com/tongs-dev/tongs/sandbox"
)

// Bounds of what is remembered of clients.
const (
	maxClients     = 4096
	maxSessions    = 16 // of one client at the same time; with more it is ambiguous
	clientLifetime = 12 * time.Hour
)

// SessionHeader names the session whose sandbox a request means.
const SessionHeader = "X-Tongs-Session"

// clients remembers with which session each client works. A client is a user name, a
// machine, on this one the process, and a User-Agent; programs of which these are the
// same are told apart by their connections, and are ambiguous where that is not enough.
type clients struct {
	mu  sync.Mutex
	all map[string]*client
}

type client struct {
	sessions map[string]bool // worked with since more than one program was watching, the last one included
	last     string
	streams  int // event streams open now: one for each program of OpenCode's
	used     time.Time
}

func newClients() *clients { return &clients{all: map[string]*client{}} }

// connection is one TCP connection of a client's. It belongs to one program, unless a
// proxy is in between.
type connection struct {
	once    sync.Once
	program string // at its other end, if that is known

	mu      sync.Mutex
	who     string // the client's name
	session string
	mixed   bool // several clients have come by it
}

// of returns the connection of a request that is known to belong to one program.
func (c *connection) of(r *http.Request) bool {
	who := name(r)
	if c.who == "" {
		c.who = who
	}
	for _, by := range []string{"X-Forwarded-For", "Forwarded", "Via"} {
		c.mixed = c.mixed || r.Header.Get(by) != ""
	}
	c.mixed = c.mixed || c.who != who
	return !c.mixed
}

type connectionKey struct{}

// ConnContext is for http.Server.ConnContext: it lets the doors tell connections apart.
func (d *Doors) ConnContext(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, &connection{})
}

// name tells clients apart. What a proxy says of where a request comes from makes them
// more, never fewer.
func name(r *http.Request) string {
	user, _, _ := r.BasicAuth()
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	cut := func(s string) string { return s[:min(len(s), 256)] }
	if conn, ok := r.Context().Value(connectionKey{}).(*connection); ok {
		conn.once.Do(func() { conn.program = program(r) })
		host += "\x00" + conn.program
	}
	return cut(user) + "\x00" + host + "\x00" + cut(r.Header.Get("X-Forwarded-For")) + "\x00" + cut(r.UserAgent())
}

// Worked says that the client of a request, which has passed the gates, works with a session.
func (d *Doors) Worked(r *http.Request, session string) {
	if len(session) > maxID {
		return
	}
	if conn, ok := r.Context().Value(connectionKey{}).(*connection); ok {
		conn.mu.Lock()
		if conn.of(r) {
			conn.session = session
		}
		conn.mu.Unlock()
	}
	c := d.clients
	c.mu.Lock()
	defer c.mu.Unlock()
	one := c.get(name(r))
	if one.streams <= 1 {
		clear(one.sessions) // there is one program, and this is its session
	}
	if len(one.sessions) <= maxSessions {
		one.sessions[session] = true
	}
	one.last = session
}

// Watching says that a client follows events, until the function it returns is called.
func (d *Doors) Watching(r *http.Request) (done func()) {
	c, who := d.clients, name(r)
	c.mu.Lock()
	defer c.mu.Unlock()
	one := c.get(who)
	one.streams++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		one.streams--
		one.used = time.Now()
	}
}

// get returns a client, and makes room for a new one. mu is held.
func (c *clients) get(who string) *client {
	one, ok := c.all[who]
	if ok && (one.streams > 0 || time.Since(one.used) < clientLifetime) {
		one.used = time.Now()
		return one
	}
	if len(c.all) >= maxClients {
		var oldest string
		for k, o := range c.all {
			if o.streams == 0 && (oldest == "" || o.used.Before(c.all[oldest].used)) {
				oldest = k
			}
		}
		delete(c.all, oldest)
	}
	one = &client{sessions: map[string]bool{}, used: time.Now()}
	c.all[who] = one
	return one
}

// last returns the sessions that a client without a name of its own may mean: none,
// one, or several between which nothing decides.
func (c *clients) last(r *http.Request) []string {
	if conn, ok := r.Context().Value(connectionKey{}).(*connection); ok {
		conn.mu.Lock()
		session, good := conn.session, conn.of(r)
		conn.mu.Unlock()
		if good && session != "" {
			return []string{session}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	one, ok := c.all[name(r)]
	if !ok || one.last == "" || one.streams == 0 && time.Since(one.used) >= clientLifetime {
		return nil
	}
	var all []string
	for s := range one.sessions {
		all = append(all, s)
	}
	return all
}

// maxID bounds a session's id.
const maxID = 128

// which returns the sandbox that a request without a session means, and its root
// session; no sandbox, and no error, where it means none.
func (d *Doors) which(ctx context.Context, r *http.Request) (*sandbox.Client, string, error) {
	if err := refuseWorkspace(r); err != nil {
		return nil, "", err
	}
	if named := r.Header.Values(SessionHeader); len(named) > 0 {
		if len(named) > 1 || len(named[0]) > maxID {
			return nil, "", badInput("the header "+SessionHeader+" does not name one session", "send the id of a session")
		}
		return d.reach(ctx, named[0])
	}
	if session, isPage := pageSession(r); isPage {
		if session == "" {
			return nil, "", nil
		}
		return d.reach(ctx, session)
	}
	root := ""
	for _, session := range d.clients.last(r) {
		of, err := d.cfg.Root(ctx, session)
		switch {
		case ctx.Err() != nil:
			return nil, "", ctx.Err()
		case err != nil:
			continue // it is gone, or never was
		case root != "" && root != of:
			return nil, "", nil // ambiguous
		}
		root = of
	}
	if root == "" {
		return nil, "", nil
	}
	box, err := d.cfg.Sandbox(ctx, root)
	if sandbox.CodeOf(err) == "SESSION_GONE" {
		return nil, "", nil
	}
	return box, root, err
}

func (d *Doors) reach(ctx context.Context, session string) (*sandbox.Client, string, error) {
	root, err := d.cfg.Root(ctx, session)
	if err != nil {
		return nil, "", err
	}
	box, err := d.cfg.Sandbox(ctx, root)
	return box, root, err
}

// refuseWorkspace refuses a request for a directory that means a sandbox of several
// sessions, which there is not yet. Any other directory means nothing here.
func refuseWorkspace(r *http.Request) error {
	header, err := url.PathUnescape(r.Header.Get("X-Opencode-Directory"))
	if err != nil {
		header = ""
	}
	q := r.URL.Query()
	for _, dir := range []string{header, q.Get("directory"), q.Get("location[directory]")} {
		if strings.HasPrefix(dir, "/workspaces/") {
			return &gateway.Error{Status: http.StatusBadRequest, Code: "NO_WORKSPACES", Message: "there are no workspaces yet: each session has a sandbox of its own",
				Hint: "leave --dir out"}
		}
	}
	return nil
}

// pageSession returns the session that the web page shows from which a request comes.
// Its addresses are /<directory>/session/<id>; other pages show none.
func pageSession(r *http.Request) (session string, isPage bool) {
	ref, err := url.Parse(r.Header.Get("Referer"))
	if err != nil || ref.Host == "" || !strings.EqualFold(ref.Host, r.Host) {
		return "", false
	}
	parts := strings.Split(strings.Trim(ref.Path, "/"), "/")
	for i, part := range parts {
		if part == "session" && i+1 < len(parts) && strings.HasPrefix(parts[i+1], "ses_") && len(parts[i+1]) <= maxID {
			return parts[i+1], true
		}
	}
	return "", true
}
