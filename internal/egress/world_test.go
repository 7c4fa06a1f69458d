package egress_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/tongs-dev/tongs/internal/egress"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is what a gate meets: names, the servers behind their addresses, and a sandbox's side that connects
// wherever it likes.
type world struct {
	t       *testing.T
	gate    *egress.Gate
	log     *syncBuffer
	names   map[string][]string
	servers map[string]string // address:port in the world → where it really listens

	mu     sync.Mutex
	asked  []string
	dialed []string

	front net.Listener
	dsts  sync.Map // local address of the sandbox's end → destination
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func (w *world) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	w.mu.Lock()
	w.asked = append(w.asked, host)
	w.mu.Unlock()
	var all []netip.Addr
	for _, a := range w.names[strings.TrimSuffix(host, ".")] {
		all = append(all, netip.MustParseAddr(a))
	}
	if all == nil {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return all, nil
}

func (w *world) dial(ctx context.Context, network, address string) (net.Conn, error) {
	w.mu.Lock()
	w.dialed = append(w.dialed, address)
	w.mu.Unlock()
	real, ok := w.servers[address]
	if !ok {
		return nil, fmt.Errorf("nothing at %s", address)
	}
	return (&net.Dialer{}).DialContext(ctx, network, real)
}

func newWorld(t *testing.T, allow, deny []string, change func(*egress.Config)) *world {
	t.Helper()
	w := &world{t: t, log: &syncBuffer{}, names: map[string][]string{}, servers: map[string]string{}}
	cfg := egress.Config{
		Policy: policy(t, allow, deny), Logger: slog.New(slog.NewTextHandler(w.log, nil)), Resolver: w, Dial: w.dial,
		Original: func(c net.Conn) (netip.AddrPort, error) {
			dst, ok := w.dsts.Load(c.RemoteAddr().String())
			if !ok {
				return netip.AddrPort{}, errors.New("unknown")
			}
			return dst.(netip.AddrPort), nil
		},
	}
	if change != nil {
		change(&cfg)
	}
	w.gate = egress.New(cfg)
	var err error
	if w.front, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- w.gate.ServeTCP(w.front) }()
	t.Cleanup(func() {
		w.gate.Close()
		if err := <-served; err != nil {
			t.Errorf("ServeTCP: %v", err)
		}
	})
	return w
}

// connect is what a program in the sandbox does, redirected as the kernel would.
func (w *world) connect(dst string) (net.Conn, error) {
	local, err := net.Listen("tcp", "127.0.0.1:0") // for a port of our own that we know before we connect
	if err != nil {
		return nil, err
	}
	addr := local.Addr().(*net.TCPAddr)
	local.Close()
	w.dsts.Store(addr.String(), netip.MustParseAddrPort(dst))
	c, err := (&net.Dialer{LocalAddr: addr}).Dial("tcp", w.front.Addr().String())
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return c, nil
}

// resolve asks the gate's DNS over a socket.
func (w *world) resolve(name string, kind dnsmessage.Type) (dnsmessage.RCode, []dnsmessage.Resource) {
	w.t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- w.gate.ServeDNS(pc) }()
	defer func() {
		pc.Close()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	}()
	c, err := net.Dial("udp", pc.LocalAddr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	q := dnsmessage.Message{Header: dnsmessage.Header{ID: 7, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}}}
	packed, err := q.Pack()
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := c.Write(packed); err != nil {
		w.t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := c.Read(buf)
	if err != nil {
		w.t.Fatal(err)
	}
	var reply dnsmessage.Message
	if err := reply.Unpack(buf[:n]); err != nil {
		w.t.Fatal(err)
	}
	if reply.ID != 7 || !reply.Response {
		w.t.Errorf("a reply %+v", reply.Header)
	}
	return reply.RCode, reply.Answers
}

// address is the one that the sandbox gets for a name.
func (w *world) address(name string) string {
	w.t.Helper()
	code, answers := w.resolve(name+".", dnsmessage.TypeA)
	if code != dnsmessage.RCodeSuccess || len(answers) != 1 {
		w.t.Fatalf("%s: %v, %v", name, code, answers)
	}
	a := answers[0].Body.(*dnsmessage.AResource)
	return netip.AddrFrom4(a.A).String()
}

// client is an HTTP client in the sandbox: it looks names up at the gate and connects through it.
func (w *world) client(roots *x509.CertPool) *http.Client {
	tr := &http.Transport{
		DialContext: func(_ context.Context, _, address string) (net.Conn, error) {
			host, port, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			if _, err := netip.ParseAddr(host); err != nil {
				host = w.address(host)
			}
			return w.connect(net.JoinHostPort(host, port))
		},
		TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true,
	}
	w.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 30 * time.Second}
}

func serve(t *testing.T, w *world, at string, h http.Handler, secure bool) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	if secure {
		s.EnableHTTP2 = true
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	w.servers[at] = s.Listener.Addr().String()
	return s
}

func hello(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "%s %s %s", r.Proto, r.Host, r.URL.Path)
}
