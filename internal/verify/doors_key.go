package verify

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/tongs-dev/tongs/sandbox"
)

// keyDoors are where keys and credentials could be seen.
func keyDoors() []door {
	get := func(route string, quick bool) door {
		return door{Door: Door{Group: "keys", Name: "GET " + route, Quick: quick}, run: func(ctx context.Context, p *probe, g *ground, _ Family) Cell {
			status, text, err := p.call(ctx, "GET", route, nil)
			switch result, seen := p.see(text, g.word); {
			case err != nil:
				return broken("%v", err)
			case result == Escaped:
				return escaped("%s", seen)
			case status != 200:
				return p.judge(g, status, text, err)
			}
			var answer any
			if err := json.Unmarshal([]byte(text), &answer); err != nil {
				return broken("it is not JSON: %s", text)
			}
			if name := keyIn(answer, ""); name != "" {
				return escaped("it shows a key: %s", name)
			}
			return refused("no key is in it")
		}}
	}
	return []door{
		get("/config", true), get("/global/config", true), get("/config/providers", false), get("/provider", false), get("/provider/auth", false),
		get("/api/provider", false), get("/api/model", false), get("/agent", false), get("/api/agent", false), get("/mcp", false), get("/api/integration", false), get("/experimental/console", false),
		{Door: Door{Group: "keys", Name: "files and environments of the agent host"}, run: func(ctx context.Context, p *probe, g *ground, _ Family) Cell {
			return p.search(ctx, p.agent)
		}},
		{Door: Door{Group: "keys", Name: "files and environments of the sandbox"}, run: func(ctx context.Context, p *probe, g *ground, _ Family) Cell {
			return p.search(ctx, g.box)
		}},
	}
}

// keyIn finds a member whose name is that of a key and whose text is one; "" if there is none.
func keyIn(v any, at string) string {
	switch v := v.(type) {
	case map[string]any:
		for name, inner := range v {
			here := strings.TrimPrefix(at+"."+name, ".")
			if text, ok := inner.(string); ok && text != "" && text != "redacted" {
				switch strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(name)) {
				case "apikey", "key", "authtoken", "accesstoken", "password", "secret", "authorization", "token":
					return here
				}
			}
			if found := keyIn(inner, here); found != "" {
				return found
			}
		}
	case []any:
		for i, inner := range v {
			if found := keyIn(inner, fmt.Sprintf("%s[%d]", at, i)); found != "" {
				return found
			}
		}
	}
	return ""
}

// search looks for the canary key in all that the user of a place can read. Only that one is ever
// brought there.
func (p *probe) search(ctx context.Context, box Place) Cell {
	if p.t.CanaryKey == "" {
		return refused("no canary among the keys here")
	}
	const script = `cat > {keys} 2>/dev/null || exit 9
for f in /proc/[0-9]*/environ /proc/[0-9]*/cmdline; do tr '\0' '\n' < "$f" 2>/dev/null | grep -aqF -f {keys} && echo "$f"; done
find /home /etc /opt /tmp /var -xdev -type f -size -32M -print0 2>/dev/null | xargs -0 grep -laF -f {keys} 2>/dev/null
rm -f {keys}; exit 0`
	found, err := box.Exec(ctx, sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"sh", "-c", strings.ReplaceAll(script, "{keys}", p.dir+"/.keys")}, Dir: "/"}, Input: []byte(p.t.CanaryKey + "\n")})
	if err != nil || !found.Exit.Success() {
		return broken("the search failed: %v", err)
	}
	var where []string
	for line := range strings.Lines(string(found.Stdout)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasSuffix(line, "/.keys") {
			where = append(where, line)
		}
	}
	if len(where) > 0 {
		return escaped("a provider's key is in %s", strings.Join(where, ", "))
	}
	return refused("no provider's key is there")
}
