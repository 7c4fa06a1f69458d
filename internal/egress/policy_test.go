package egress_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/tongs-dev/tongs/internal/egress"
	"github.com/tongs-dev/tongs/sandbox"
)

func policy(t testing.TB, allow, deny []string) *egress.Policy {
	t.Helper()
	p, err := egress.ParsePolicy(allow, deny)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPolicyNames(t *testing.T) {
	t.Parallel()
	p := policy(t,
		[]string{"example.org", "*.wild.example", "ssh.example:22", "any.example:*", "*.Upper.Example.", "192.0.2.7", "[2001:db8::1]:8443"},
		[]string{"bad.wild.example:*"})
	for _, c := range []struct {
		name string
		port uint16
		want bool
	}{
		{"example.org", 443, true}, {"EXAMPLE.org.", 80, true}, {"example.org", 22, false}, {"sub.example.org", 443, false},
		{"notexample.org", 443, false}, {"example.org.evil.example", 443, false},
		{"a.wild.example", 443, true}, {"a.b.wild.example", 443, true}, {"wild.example", 443, false}, {"awild.example", 443, false},
		{"bad.wild.example", 443, false}, {"sub.bad.wild.example", 443, true},
		{"ssh.example", 22, true}, {"ssh.example", 443, false}, {"any.example", 6379, true}, {"x.upper.example", 443, true},
		{"192.0.2.7", 443, false}, {"", 443, false}, {"exa mple.org", 443, false}, {"example.org\x00", 443, false},
	} {
		if v := p.Name(c.name, c.port); v.Allowed != c.want {
			t.Errorf("%q:%d: %v, %s", c.name, c.port, v.Allowed, v.Reason)
		}
	}
	everything := policy(t, []string{"*:*"}, []string{"evil.example:*"})
	if !everything.Name("what.ever", 1).Allowed || everything.Name("evil.example", 443).Allowed {
		t.Error("the wildcard for all names")
	}
	if everything.Addr(netip.MustParseAddr("192.0.2.7"), 443).Allowed {
		t.Error("the wildcard for all names is none for addresses")
	}
	if (&egress.Policy{}).Name("example.org", 443).Allowed {
		t.Error("the zero value refuses")
	}
}

func TestPolicyAddresses(t *testing.T) {
	t.Parallel()
	p := policy(t, []string{"192.0.2.7", "10.1.0.0/16:5432", "[2001:db8::1]:8443", "127.0.0.1:*", "169.254.0.0/16:*", "0.0.0.0/0:8080", "[::/0]:8080", "*"}, []string{"198.51.100.0/24:*"})
	for _, c := range []struct {
		addr           string
		port           uint16
		addr_, resolve bool // as an address, and of a name
	}{
		{"192.0.2.7", 443, true, true}, {"192.0.2.8", 443, false, true}, {"::ffff:192.0.2.7", 443, true, true},
		{"10.1.2.3", 5432, true, true}, {"10.1.2.3", 443, false, false}, {"10.2.0.1", 5432, false, false}, {"10.9.9.9", 8080, true, true},
		{"2001:db8::1", 8443, true, true}, {"127.0.0.1", 80, false, false}, {"127.9.9.9", 8080, false, false}, {"::1", 8080, false, false},
		{"169.254.169.254", 80, false, false}, {"::ffff:169.254.169.254", 80, false, false}, {"fe80::1", 8080, false, false},
		{"64:ff9b::a9fe:a9fe", 8080, false, false}, {"2002:7f00:1::", 8080, false, false}, {"2001:0:0:0:0:0:5601:5601", 8080, false, false},
		{"64:ff9b::c000:207", 443, false, true}, {"100.100.100.200", 8080, false, false}, {"fd00:ec2::254", 8080, false, false},
		{"0.0.0.0", 8080, false, false}, {"::", 8080, false, false}, {"224.0.0.1", 8080, false, false}, {"255.255.255.255", 8080, false, false},
		{"198.51.100.5", 8080, false, false}, {"fc00::1", 443, false, false}, {"fc00::1", 8080, true, true},
	} {
		a := netip.MustParseAddr(c.addr)
		if v := p.Addr(a, c.port); v.Allowed != c.addr_ {
			t.Errorf("%s:%d as an address: %v, %s", c.addr, c.port, v.Allowed, v.Reason)
		}
		if v := p.Resolved(a, c.port); v.Allowed != c.resolve {
			t.Errorf("%s:%d of a name: %v, %s", c.addr, c.port, v.Allowed, v.Reason)
		}
	}
}

func TestPolicyErrors(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{
		"", " ", "https://example.org", "user@example.org", "example.org:0", "example.org:65536", "example.org:http", "exa mple.org",
		"*.", "*example.org", "a.*.org", "-a.org", "a..org", "1.2.3", "1.2.3.4.5", "10.0.0.0/33", "10.0.0.0/8/8", "fe80::1%eth0",
		"::ffff:10.0.0.0/104", "[::1", "::1]", strings.Repeat("a", 64) + ".org", strings.Repeat("a.", 127) + "org", "exämple.org", ":443", "a\x00b",
	} {
		_, err := egress.ParsePolicy([]string{"example.org", bad}, nil)
		if sandbox.CodeOf(err) != sandbox.CodeInvalidArgument {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := egress.ParsePolicy(make([]string, egress.MaxRules+1), nil); err == nil {
		t.Error("too many rules")
	}
	if _, err := egress.ParsePolicy(egress.DefaultAllow(), nil); err != nil {
		t.Error(err)
	}
}

func FuzzPolicy(f *testing.F) {
	for _, s := range []string{"example.org", "*.a.b:22", "[::1]:443", "10.0.0.0/8:*", "::1", "*"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := egress.ParsePolicy([]string{text}, nil)
		if err != nil {
			return
		}
		for _, a := range []string{"127.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1"} {
			if p.Addr(netip.MustParseAddr(a), 80).Allowed || p.Resolved(netip.MustParseAddr(a), 80).Allowed {
				t.Errorf("%q allows %s", text, a)
			}
		}
		if strings.TrimSpace(text) != "*" && !strings.HasPrefix(strings.TrimSpace(text), "*:") && p.Name("not-named.invalid", 443).Allowed && !strings.Contains(strings.ToLower(text), "invalid") {
			t.Errorf("%q allows every name", text)
		}
	})
}
