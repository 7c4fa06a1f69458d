package registry

import "strings"

// parseChallenge reads a WWW-Authenticate header (RFC 9110, 11.6.1) with one challenge: its kind in lower
// case, and its parameters.
func parseChallenge(text string) (kind string, params map[string]string) {
	kind, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	params = make(map[string]string)
	for rest != "" && len(params) < 16 {
		name, after, ok := strings.Cut(strings.TrimLeft(rest, " ,"), "=")
		if !ok {
			break
		}
		var value string
		if quoted, ok := strings.CutPrefix(after, `"`); ok {
			var b strings.Builder
			i := 0
			for ; i < len(quoted) && quoted[i] != '"'; i++ {
				if quoted[i] == '\\' && i+1 < len(quoted) {
					i++
				}
				b.WriteByte(quoted[i])
			}
			value, rest = b.String(), ""
			if i < len(quoted) {
				rest = quoted[i+1:]
			}
		} else {
			value, rest, _ = strings.Cut(after, ",")
		}
		params[strings.ToLower(strings.TrimSpace(name))] = value
	}
	return strings.ToLower(kind), params
}
