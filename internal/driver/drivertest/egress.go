package drivertest

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/egress"
	"github.com/tongs-dev/tongs/sandbox"
)

// outside is the network that a test's keeper finds: some names, and a web server behind one address.
type outside struct{ server string }

func (o outside) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	switch strings.TrimSuffix(host, ".") {
	case "example.com":
		return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, nil
	case "rebound.example":
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

func (o outside) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if address != "192.0.2.1:80" {
		return nil, fmt.Errorf("nothing at %s", address)
	}
	return (&net.Dialer{}).DialContext(ctx, network, o.server)
}

// request asks for a page with bash alone.
func request(host string, port int) string {
	return fmt.Sprintf(`exec 3<>/dev/tcp/%s/%d && printf 'GET /page HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' >&3 && cat <&3`, host, port, host)
}

func testEgress(t *testing.T, s Suite) {
	b := newBed(t, s)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "this is %s%s", r.Host, r.URL.Path) }))
	t.Cleanup(web.Close)
	onHost := web.Listener.Addr().(*net.TCPAddr).Port
	policy, err := egress.ParsePolicy([]string{"example.com", "rebound.example", "missing.example"}, nil)
	must(t, err)
	world := outside{web.Listener.Addr().String()}
	keeper := func() *egress.Keeper {
		k := egress.NewKeeper(egress.KeeperConfig{Default: policy, Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler),
			Gate: egress.Config{Resolver: world, Dial: world.dial}})
		t.Cleanup(k.Close)
		return k
	}
	spec := b.spec("out")
	spec.Network = driver.NetworkEgress
	b.create(t, spec)
	c := b.connect(t, "out")
	if res := bash(t, c, request("203.0.113.1", 80)); res.Exit.Success() {
		t.Errorf("connected although nobody accepts: %s", res.Stdout)
	}
	first := keeper()
	must(t, first.Serve(t.Context(), "out", c))

	for _, test := range []struct {
		script string
		want   string // in what it prints, success; or
		fails  string // in what it says
	}{
		{"getent ahostsv4 example.com", "198.18.", ""},
		{"getent ahosts example.com", "198.18.", ""},
		{"getent hosts missing.example || echo none", "none", ""},
		{request("example.com", 80), "this is example.com/page", ""},
		{request("forbidden.example", 80), "EGRESS_DENIED", ""},
		{request("203.0.113.9", 80), "EGRESS_DENIED", ""},
		{request("rebound.example", 80), "resolves to a special address: loopback", ""},
		{request("10.0.0.1", 80), "", "Connection refused"},
		{request("192.168.1.1", 80), "", "Connection refused"},
		{request("169.254.169.254", 80), "", "Connection refused"},
		{request("100.100.100.200", 80), "", "Connection refused"},
		{request("224.0.0.1", 80), "", "unreachable"},
		{request("::ffff:10.0.0.1", 80), "", "Connection refused"},
		{request("2001:db8::1", 80), "", "unreachable"},
		{request("127.0.0.1", onHost), "", "Connection refused"}, // of the host
		{"ping -c1 -W2 203.0.113.9", "", ""},
		{"perl -MSocket -e 'socket(S, AF_INET, SOCK_DGRAM, 0); send(S, q(x), 0, sockaddr_in(123, inet_aton(q(203.0.113.9)))) or die $!; recv(S, $b, 9, 0) // die $!'", "", ""},
		// A server of one's own on the loopback is nobody else's matter.
		{"perl -MIO::Socket::INET -e '$l = IO::Socket::INET->new(Listen => 1, LocalAddr => q(127.0.0.1)); $c = IO::Socket::INET->new(PeerAddr => q(127.0.0.1), PeerPort => $l->sockport) or die; $a = $l->accept; print $a q(hi); close $a; print <$c>'", "hi", ""},
		// What belongs to the way out can't be reached as itself.
		{request("127.0.0.1", sandbox.EgressPort), "EGRESS_DENIED", ""},
		{request("198.19.255.254", sandbox.EgressPort), "", "Connection refused"},
	} {
		res := bash(t, c, "timeout 20 bash -c "+quote(test.script))
		ok := res.Exit.Success() && test.want != "" && bytes.Contains(res.Stdout, []byte(test.want))
		if test.want == "" {
			ok = !bytes.Contains(res.Stdout, []byte("this is")) && (!res.Exit.Success() || len(res.Stdout) == 0) && bytes.Contains(res.Stderr, []byte(test.fails))
		}
		if !ok {
			t.Errorf("%s\n%+v %s\n%s", test.script, res.Exit, res.Stdout, res.Stderr)
		}
	}

	// A policy of its own, while it runs and for the next host.
	must(t, first.Set("out", []string{"other.example"}, []string{"example.com"}))
	if out := output(t, c, request("example.com", 80)); !strings.Contains(out, "EGRESS_DENIED") {
		t.Errorf("after the change: %s", out)
	}
	if err := first.Set("out", []string{"https://wrong"}, nil); sandbox.CodeOf(err) != sandbox.CodeInvalidArgument {
		t.Errorf("a policy with an error: %v", err)
	}
	if st, err := first.Status("out"); err != nil || st.Default || len(st.Deny) != 1 || st.Stats.Refused == 0 {
		t.Errorf("%+v, %v", st, err)
	}
	must(t, first.Reset("out"))

	// The next host takes over, with what waited meanwhile.
	first.Close()
	c.Close()
	c = b.connect(t, "out")
	waiting := make(chan string, 1)
	go func() {
		res, err := c.Exec(t.Context(), sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"bash", "-c", "echo begun >/tmp/begun; " + request("example.com", 80)}}})
		if err != nil {
			waiting <- err.Error()
			return
		}
		waiting <- string(res.Stdout) + string(res.Stderr)
	}()
	output(t, c, "until test -e /tmp/begun; do sleep 0.01; done")
	second := keeper()
	must(t, second.Serve(t.Context(), "out", c))
	if out := <-waiting; !strings.Contains(out, "this is example.com/page") {
		t.Errorf("over a change of hosts: %s", out)
	}

	// And after the sandbox was started anew.
	must(t, b.Stop(t.Context(), "out"))
	must(t, b.Start(t.Context(), "out"))
	c = b.connect(t, "out")
	must(t, second.Serve(t.Context(), "out", c))
	if out := output(t, c, request("example.com", 80)); !strings.Contains(out, "this is example.com/page") {
		t.Errorf("after a new start: %s", out)
	}

	// A sandbox without it has nothing.
	b.create(t, b.spec("closed"))
	none := b.connect(t, "closed")
	for _, host := range []string{"203.0.113.9", "example.com"} {
		if res := bash(t, none, request(host, 80)); res.Exit.Success() {
			t.Errorf("no network, and connected to %s", host)
		}
	}
}

// quote makes one word of the shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
