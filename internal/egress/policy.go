package egress

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/tongs-dev/tongs/sandbox"
)

// MaxRules bounds each list of a policy.
const MaxRules = 4096

// defaultPorts are what a rule without a port is about.
var defaultPorts = []uint16{80, 443}

// rule is one line of a list.
type rule struct {
	text   string
	all    bool         // "*": every name
	name   string       // a name, lower case, without a last dot
	below  bool         // "*.name": every name below it, and not itself
	prefix netip.Prefix // an address or a range
	ports  []uint16     // nil: any
}

// A Policy says what may leave a sandbox. It never changes; the zero value refuses everything.
type Policy struct {
	allow, deny []rule
}

// ParsePolicy reads the two lists. What a rule of deny matches is refused, also where a rule of allow
// matches; what no rule matches is refused. A rule is one of
//
//	example.org         the name, ports 80 and 443
//	*.example.org       every name below it, not itself
//	example.org:22      one port; ":*" is every port
//	*                   every name
//	192.0.2.7           an address; [2001:db8::1]:443 with a port
//	10.1.0.0/16:5432    a range of addresses; [2001:db8::/32]:443
//
// Names in other scripts are written in their ASCII form (xn--…). Names and addresses are different
// things: a rule for a name doesn't allow its address, and "*" allows no address. Any error refuses the
// whole policy: CodeInvalidArgument, which names the rule.
func ParsePolicy(allow, deny []string) (*Policy, error) {
	p := &Policy{}
	for _, list := range []struct {
		name string
		from []string
		to   *[]rule
	}{{"allow", allow, &p.allow}, {"deny", deny, &p.deny}} {
		if len(list.from) > MaxRules {
			return nil, invalid(fmt.Sprintf("the list %q has %d rules and may have %d", list.name, len(list.from), MaxRules), "name ranges or use wildcards")
		}
		for _, text := range list.from {
			r, err := parseRule(text)
			if err != nil {
				return nil, invalid(fmt.Sprintf("%s: %.200q: %s", list.name, text, err), "write NAME, *.NAME, *, ADDRESS or ADDRESS/BITS, with :PORT or :* if need be")
			}
			*list.to = append(*list.to, r)
		}
	}
	return p, nil
}

func invalid(message, hint string) error {
	return sandbox.Errf(sandbox.CodeInvalidArgument, "read egress policy", message, hint)
}

func parseRule(text string) (rule, error) {
	r := rule{text: text, ports: defaultPorts}
	host := strings.TrimSpace(text)
	if host == "" {
		return r, fmt.Errorf("it is empty")
	}
	// A port comes after the last colon, but an IPv6 address without brackets is full of them.
	if i := strings.LastIndexByte(host, ':'); i >= 0 && (strings.Count(host, ":") == 1 || host[i-1] == ']' || strings.HasPrefix(host, "[")) && i > strings.LastIndexByte(host, ']') {
		port := host[i+1:]
		host = host[:i]
		if port == "*" {
			r.ports = nil
		} else {
			n, err := strconv.ParseUint(port, 10, 16)
			if err != nil || n == 0 {
				return r, fmt.Errorf("%q is no port", port)
			}
			r.ports = []uint16{uint16(n)}
		}
	}
	if strings.Contains(host, "://") || strings.Contains(host, "@") {
		return r, fmt.Errorf("it is a URL; only its host is wanted")
	}
	if host == "*" {
		r.all = true
		return r, nil
	}
	bare := host
	if inner, ok := strings.CutPrefix(host, "["); ok {
		if bare, ok = strings.CutSuffix(inner, "]"); !ok {
			return r, fmt.Errorf("the bracket is not closed")
		}
	}
	if addr, err := netip.ParseAddr(bare); err == nil {
		if addr.Zone() != "" {
			return r, fmt.Errorf("an address with a zone is local to a host")
		}
		addr = addr.Unmap()
		r.prefix = netip.PrefixFrom(addr, addr.BitLen())
		return r, nil
	}
	if strings.Contains(bare, "/") {
		prefix, err := netip.ParsePrefix(bare)
		if err != nil || prefix.Addr().Is4In6() {
			return r, fmt.Errorf("%q is no range of addresses", bare)
		}
		r.prefix = prefix.Masked()
		return r, nil
	}
	if below, ok := strings.CutPrefix(host, "*."); ok {
		r.below, host = true, below
	}
	name, err := normalName(host)
	if err != nil {
		return r, err
	}
	r.name = name
	return r, nil
}

// normalName gives a name in lower case without its last dot, or says why it is none.
func normalName(s string) (string, error) {
	s = strings.ToLower(strings.TrimSuffix(s, "."))
	if s == "" || len(s) > 253 {
		return "", fmt.Errorf("a name has 1 to 253 characters")
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return "", fmt.Errorf("each part of a name has 1 to 63 characters")
		}
		if label[0] == '-' || label[len(label)-1] == '-' {
			return "", fmt.Errorf("a part of a name doesn't begin or end with \"-\"")
		}
		for _, c := range []byte(label) {
			if c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
				return "", fmt.Errorf("%q is not allowed in a name", string(rune(c)))
			}
		}
	}
	if last := s[strings.LastIndexByte(s, '.')+1:]; strings.Trim(last, "0123456789") == "" {
		return "", fmt.Errorf("a name doesn't end with a number")
	}
	return s, nil
}

func (r *rule) port(port uint16) bool { return r.ports == nil || slices.Contains(r.ports, port) }

func (r *rule) matchName(name string, port uint16) bool {
	if r.prefix.IsValid() || !r.port(port) {
		return false
	}
	if r.below {
		return len(name) > len(r.name)+1 && strings.HasSuffix(name, r.name) && name[len(name)-len(r.name)-1] == '.'
	}
	return r.all || r.name == name
}

func (r *rule) matchAddr(a netip.Addr, port uint16) bool {
	return r.prefix.IsValid() && r.port(port) && r.prefix.Contains(a)
}

// A Verdict is what a policy says of one destination.
type Verdict struct {
	Allowed bool
	Reason  string // in words, with the rule if one matched
}

// Name judges a connection to a name. The addresses that the name resolves to are judged by Resolved.
func (p *Policy) Name(name string, port uint16) Verdict {
	name, err := normalName(name)
	if err != nil {
		return Verdict{false, "it is no host name: " + err.Error()}
	}
	return p.judge(func(r *rule) bool { return r.matchName(name, port) }, port)
}

// Addr judges a connection to an address that was not got from a name.
func (p *Policy) Addr(a netip.Addr, port uint16) Verdict {
	a = a.Unmap().WithZone("")
	if c, what := classify(a); c == never {
		return Verdict{false, "the address is special: " + what}
	}
	return p.judge(func(r *rule) bool { return r.matchAddr(a, port) }, port)
}

// Resolved judges an address that an allowed name has resolved to: public ones pass unless a rule of deny
// names them; a private one needs a rule of allow that names it as an address.
func (p *Policy) Resolved(a netip.Addr, port uint16) Verdict {
	a = a.Unmap().WithZone("")
	c, what := classify(a)
	if c == never {
		return Verdict{false, "it resolves to a special address: " + what}
	}
	for i := range p.deny {
		if p.deny[i].matchAddr(a, port) {
			return Verdict{false, "it resolves to an address that the rule " + strconv.Quote(p.deny[i].text) + " denies"}
		}
	}
	if c == private {
		if v := p.Addr(a, port); !v.Allowed {
			return Verdict{false, "it resolves to a " + what + " address that no rule allows"}
		}
	}
	return Verdict{Allowed: true}
}

func (p *Policy) judge(match func(*rule) bool, port uint16) Verdict {
	for i := range p.deny {
		if match(&p.deny[i]) {
			return Verdict{false, "the rule " + strconv.Quote(p.deny[i].text) + " denies it"}
		}
	}
	for i := range p.allow {
		if match(&p.allow[i]) {
			return Verdict{true, "the rule " + strconv.Quote(p.allow[i].text) + " allows it"}
		}
	}
	return Verdict{false, fmt.Sprintf("no rule allows it on port %d", port)}
}

// Rules gives the lists back as they were read.
func (p *Policy) Rules() (allow, deny []string) {
	for _, r := range p.allow {
		allow = append(allow, r.text)
	}
	for _, r := range p.deny {
		deny = append(deny, r.text)
	}
	return allow, deny
}
