package preview

import (
	"net"
	"strconv"
	"strings"
)

// name is what a preview's host name says.
type name struct {
	port int
	rest string // the sandbox, or the sandbox and a token
}

// maxLabel is how long a label of a host name may be (RFC 1035 §2.3.4).
const maxLabel = 63

// parseHost reads a Host header; false when it isn't a preview's under one of the
// domains.
func parseHost(host string, domains []string) (name, bool) {
	if h, port, err := net.SplitHostPort(host); err == nil {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return name{}, false
		}
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	for _, domain := range domains {
		label, ok := strings.CutSuffix(host, "."+domain)
		if !ok || len(label) > maxLabel {
			continue
		}
		digits, rest, ok := strings.Cut(label, "-")
		if !ok || !isLabel(rest) || digits == "" || digits[0] == '0' {
			continue
		}
		port, err := strconv.ParseUint(digits, 10, 16)
		if err != nil {
			continue
		}
		return name{port: int(port), rest: rest}, true
	}
	return name{}, false
}

// isLabel says whether a text can be a part of a label: a-z 0-9 _ and, inside, -.
func isLabel(s string) bool {
	if s == "" || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// Label is how a sandbox's id or name, or a session's id, is written in a host
// name, where neither upper case nor an underscore can be relied on.
func Label(sandbox string) string {
	return strings.ReplaceAll(strings.ToLower(sandbox), "_", "-")
}

// split takes the token off the end of a name.
func (n name) split() (sandbox, token string, ok bool) {
	i := strings.LastIndexByte(n.rest, '-')
	if i < 1 || i == len(n.rest)-1 {
		return "", "", false
	}
	return strings.TrimRight(n.rest[:i], "-"), n.rest[i+1:], true
}
