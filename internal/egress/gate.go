package egress

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

// Bounds of a gate.
const (
	DefaultConns = 512              // connections of one sandbox at a time
	dialTimeout  = 30 * time.Second // resolving and connecting
	helloTimeout = 10 * time.Second // from the first byte of a TLS handshake or an HTTP request to its last
	// firstByte is how long a connection that is allowed may keep silent before it is passed on without a
	// look into it: some protocols begin with the server.
	firstByte = 300 * time.Millisecond
	// lastWord is how long a connection that is refused may take to show that it is HTTP, and so to get
	// an answer and no reset.
	lastWord  = 2 * time.Second
	keepAlive = 60 * time.Second
)

// A Resolver looks names up; *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Config is what a gate needs. Policy and Logger are required.
type Config struct {
	Policy *Policy
	Logger *slog.Logger // gets one event for each kind of refusal, not for each refusal

	// Resolver and Dial are the host's way out. Dial is given addresses that have been checked, or names
	// if Proxied is set. Default: the system's.
	Resolver Resolver
	Dial     func(ctx context.Context, network, address string) (net.Conn, error)
	// Proxied: Dial goes through a proxy of the operator's (see ViaProxy), which resolves names itself and
	// is trusted to refuse its own network. Allowed names are then not resolved here.
	Proxied bool

	// Original tells where an accepted connection was going. Default: SO_ORIGINAL_DST, ip(7).
	Original func(net.Conn) (netip.AddrPort, error)

	Conns  int           // connections at a time; default DefaultConns
	Shared chan struct{} // if set, a semaphore that gates share: one place for each connection of any of them
}

// A Gate is the way out of one sandbox. It is safe for use by many goroutines.
type Gate struct {
	cfg    Config
	policy atomic.Pointer[Policy]
	names  *names
	room   chan struct{}
	noted  notes
	cache  cache
	plain  *plain

	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{} // nil once closed

	stats counters
}

type counters struct{ connections, refused, failed, queries, up, down atomic.Int64 }

// Stats count since the gate was made.
type Stats struct {
	Connections int64 `json:"connections"` // that were let through
	Refused     int64 `json:"refused"`     // by the policy or a bound
	Failed      int64 `json:"failed"`      // allowed, but the other side was not reached
	Queries     int64 `json:"queries"`     // of DNS
	BytesUp     int64 `json:"bytesUp"`     // out of the sandbox, of connections that have ended
	BytesDown   int64 `json:"bytesDown"`
}

// New makes a gate. Close ends it.
func New(cfg Config) *Gate {
	if cfg.Resolver == nil {
		cfg.Resolver = net.DefaultResolver
	}
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{KeepAlive: keepAlive}).DialContext
	}
	if cfg.Original == nil {
		cfg.Original = original
	}
	if cfg.Conns <= 0 {
		cfg.Conns = DefaultConns
	}
	g := &Gate{cfg: cfg, names: newNames(), room: make(chan struct{}, cfg.Conns), conns: make(map[net.Conn]struct{})}
	g.policy.Store(cfg.Policy)
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.plain = newPlain(g)
	return g
}

// Policy is the one in force.
func (g *Gate) Policy() *Policy { return g.policy.Load() }

// SetPolicy changes the policy for every connection and HTTP request that comes from now on. What is
// connected stays so.
func (g *Gate) SetPolicy(p *Policy) { g.policy.Store(p) }

// Stats tells what has passed.
func (g *Gate) Stats() Stats {
	c := &g.stats
	return Stats{c.connections.Load(), c.refused.Load(), c.failed.Load(), c.queries.Load(), c.up.Load(), c.down.Load()}
}

// Close ends every connection and returns when all is over. The listeners are their owners' to close.
func (g *Gate) Close() {
	g.cancel()
	g.mu.Lock()
	conns := g.conns
	g.conns = nil
	g.mu.Unlock()
	for c := range conns {
		c.Close()
	}
	g.plain.close()
	g.work.Wait()
}

// track remembers a connection for Close. It is false, and the connection closed, when the gate is.
func (g *Gate) track(c net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.conns == nil {
		c.Close()
		return false
	}
	g.conns[c] = struct{}{}
	return true
}

func (g *Gate) untrack(c net.Conn) {
	g.mu.Lock()
	delete(g.conns, c)
	g.mu.Unlock()
	c.Close()
}

// ServeTCP accepts connections until the listener or the gate is closed.
func (g *Gate) ServeTCP(l net.Listener) error {
	return g.accept(l, func(conn net.Conn) {
		release, ok := g.enter()
		if !ok {
			g.refuse(netip.AddrPort{}, "", "the sandbox has as many connections as it may have")
			reset(conn)
			return
		}
		if !g.track(conn) {
			release()
			return
		}
		g.work.Go(func() {
			defer release()
			g.serve(conn)
		})
	})
}

// accept hands over each connection until the listener or the gate is closed. What passes, such as a lack of
// descriptors, is waited for.
func (g *Gate) accept(l net.Listener, each func(net.Conn)) error {
	stop := context.AfterFunc(g.ctx, func() { l.Close() })
	defer stop()
	for delay := time.Duration(0); ; {
		conn, err := l.Accept()
		if err == nil {
			delay = 0
			each(conn)
			continue
		}
		if g.ctx.Err() != nil || closed(err) {
			return nil
		}
		var temporary interface{ Temporary() bool } // as net/http does
		if !errors.As(err, &temporary) || !temporary.Temporary() {
			return err
		}
		delay = min(max(2*delay, 5*time.Millisecond), time.Second)
		select {
		case <-time.After(delay):
		case <-g.ctx.Done():
			return nil
		}
	}
}

// closed tells the end of a socket: closed here, or shut down by the sandbox's guest, which holds it too.
func closed(err error) bool { return errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.EINVAL) }

// enter takes a place for a connection.
func (g *Gate) enter() (release func(), ok bool) {
	select {
	case g.room <- struct{}{}:
	default:
		return nil, false
	}
	if g.cfg.Shared != nil {
		select {
		case g.cfg.Shared <- struct{}{}:
		default:
			<-g.room
			return nil, false
		}
	}
	return func() {
		<-g.room
		if g.cfg.Shared != nil {
			<-g.cfg.Shared
		}
	}, true
}

// refuse counts and notes a refusal.
func (g *Gate) refuse(to netip.AddrPort, name, reason string) {
	g.stats.refused.Add(1)
	where := name
	if where == "" {
		where = to.Addr().String()
	}
	if n, ok := g.noted.take(where+"\x00"+reason, time.Now()); ok {
		g.cfg.Logger.Warn("egress refused", "host", where, "port", to.Port(), "reason", reason, "unreported", n)
	}
}

// reset ends a connection so that the other side sees that it was refused.
func reset(c net.Conn) {
	if t, ok := c.(interface{ SetLinger(int) error }); ok {
		_ = t.SetLinger(0) // else it ends in order, which is no worse than a wrong look
	}
	c.Close()
}

// denied is what a refused dial returns.
func denied(host string, port uint16, reason string) error {
	return &sandbox.Error{Code: sandbox.CodePermissionDenied, Op: "connect to " + net.JoinHostPort(host, fmt.Sprint(port)),
		Message: "the sandbox may not: " + reason, Hint: "allow it under [network] where Tongs is configured"}
}

// DialContext connects as a program in the sandbox would be connected: network is "tcp", address is
// HOST:PORT. CodePermissionDenied when the policy refuses it.
func (g *Gate) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := net.LookupPort("tcp", text)
	if err != nil {
		return nil, err
	}
	if g.ctx.Err() != nil {
		return nil, net.ErrClosed
	}
	t := target{name: host, port: uint16(port)}
	if addr, err := netip.ParseAddr(host); err == nil {
		t = target{addr: addr, port: uint16(port)}
	}
	if v := g.judge(t); !v.Allowed {
		g.refuse(netip.AddrPortFrom(t.addr, t.port), t.name, v.Reason)
		return nil, denied(host, t.port, v.Reason)
	}
	return g.dial(ctx, t)
}

// target is where a connection is to go: a name, or an address.
type target struct {
	name string
	addr netip.Addr
	port uint16
}

func (t target) host() string {
	if t.name != "" {
		return t.name
	}
	return t.addr.String()
}

func (g *Gate) judge(t target) Verdict {
	if t.name != "" {
		return g.Policy().Name(t.name, t.port)
	}
	return g.Policy().Addr(t.addr, t.port)
}

// errRefused marks an allowed name that resolves to what may not be reached.
type errRefused struct{ reason string }

func (e errRefused) Error() string { return e.reason }

// dial connects to a target that judge has allowed. The addresses of a name are checked, and what was
// checked is what is dialled.
func (g *Gate) dial(ctx context.Context, t target) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if t.name == "" || g.cfg.Proxied {
		c, err := g.cfg.Dial(ctx, "tcp", net.JoinHostPort(t.host(), fmt.Sprint(t.port)))
		if err != nil {
			g.stats.failed.Add(1)
		}
		return c, err
	}
	addrs, err := g.cache.lookup(ctx, g.cfg.Resolver, t.name)
	if err != nil {
		g.stats.failed.Add(1)
		return nil, err
	}
	policy := g.Policy()
	refused := ""
	var last error
	for _, a := range addrs {
		if v := policy.Resolved(a, t.port); !v.Allowed {
			refused = v.Reason
			continue
		}
		c, err := g.cfg.Dial(ctx, "tcp", netip.AddrPortFrom(a, t.port).String())
		if err == nil {
			return c, nil
		}
		last = err
	}
	if last == nil && refused != "" {
		g.refuse(netip.AddrPortFrom(addrs[0], t.port), t.name, refused)
		return nil, errRefused{refused}
	}
	g.stats.failed.Add(1)
	if last == nil {
		last = &net.DNSError{Err: "no address", Name: t.name, IsNotFound: true}
	}
	return nil, last
}

// notes keeps the log short: each reason once a minute, and not more than a hundred different ones.
type notes struct {
	mu      sync.Mutex
	began   time.Time
	seen    map[string]struct{}
	skipped int
}

const maxNotes = 100

// take says whether to report something, and how many were not reported since the last time it said yes.
func (n *notes) take(what string, now time.Time) (skipped int, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.seen == nil || now.Sub(n.began) > time.Minute {
		n.began, n.seen = now, make(map[string]struct{})
	}
	if _, dup := n.seen[what]; dup || len(n.seen) >= maxNotes {
		n.skipped++
		return 0, false
	}
	n.seen[what] = struct{}{}
	skipped, n.skipped = n.skipped, 0
	return skipped, true
}
