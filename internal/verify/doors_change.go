package verify

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"path"
	"strings"

	"github.com/tongs-dev/tongs/sandbox"
)

// request is one request.
type request struct {
	method, route string
	body          any
}

// effect is a change that was asked for.
type effect struct {
	word   string
	status int
	text   string
	err    error
}

// changeDoors configure, execute or reach out. Each request carries a word, which must be nowhere
// afterwards: neither in the agent host's files, OpenCode's database included, nor in its
// configuration, nor in an event.
func changeDoors() []door {
	change := func(group, method, route string, body func(p *probe, g *ground, word string) any) door {
		return door{Door: Door{Group: group, Name: method + " " + route}, change: func(_ context.Context, p *probe, g *ground, word string) request {
			full := strings.NewReplacer("{word}", word, "{session}", g.session, "{dir}", p.dir, "{project}", "global").Replace(route)
			var b any
			if body != nil {
				b = body(p, g, word)
			}
			return request{method, full, b}
		}}
	}
	text := func(pairs ...any) func(*probe, *ground, string) any {
		return func(p *probe, g *ground, word string) any {
			m := map[string]any{}
			for i := 0; i+1 < len(pairs); i += 2 {
				value := pairs[i+1]
				if s, ok := value.(string); ok {
					value = strings.NewReplacer("{word}", word, "{dir}", p.dir, "{session}", g.session).Replace(s)
				}
				m[pairs[i].(string)] = value
			}
			return m
		}
	}
	command := func(p *probe, word string) []string { return []string{"touch", path.Join(p.dir, word)} }
	const config, engine, life, remote = "changes of the configuration", "the second engine", "work trees, copies, other servers", "another's client, and the server's life"
	return []door{
		change(config, "PATCH", "/config", text("username", "{word}")),
		change(config, "PATCH", "/global/config", text("username", "{word}")),
		change(config, "PUT", "/auth/verify", text("type", "api", "key", "{word}")),
		change(config, "DELETE", "/auth/{word}", nil),
		change(config, "POST", "/mcp", func(p *probe, _ *ground, word string) any {
			return map[string]any{"name": word, "config": map[string]any{"type": "local", "command": command(p, word)}}
		}),
		change(config, "POST", "/mcp/{word}/connect", nil),
		change(config, "POST", "/api/integration/anthropic/connect/key", text("key", "{word}", "label", "{word}")),
		change(config, "POST", "/provider/anthropic/oauth/authorize", text("method", 0)),
		change(config, "PATCH", "/project/{project}", func(p *probe, _ *ground, word string) any {
			return map[string]any{"name": word, "commands": map[string]any{"start": "touch " + path.Join(p.dir, word)}}
		}),
		change(config, "POST", "/session with permissions that lift a denial", nil).with(func(p *probe, _ *ground, word string) request {
			return request{"POST", "/session", map[string]any{"title": word, "permission": []any{map[string]any{"permission": "websearch", "pattern": "*", "action": "allow"}}}}
		}),
		change(config, "POST", "/session/{session}/message with tools that lift a denial", nil).with(func(_ *probe, g *ground, word string) request {
			return request{"POST", "/session/" + g.session + "/message", map[string]any{"noReply": true, "tools": map[string]any{"websearch": true}, "parts": []any{map[string]any{"type": "text", "text": word}}}}
		}),

		change(engine, "POST", "/api/session", text("title", "{word}", "location", map[string]any{"directory": "/tmp"})),
		change(engine, "POST", "/api/session/{session}/prompt", text("text", "{word}", "prompt", map[string]any{"text": "x"})),
		change(engine, "POST", "/api/pty", func(p *probe, _ *ground, word string) any {
			return map[string]any{"command": "/bin/sh", "args": []string{"-c", "touch " + path.Join(p.dir, word)}, "title": word, "cwd": p.dir}
		}),
		change(engine, "GET", "/api/fs/read/{word}", nil),

		change(life, "POST", "/experimental/worktree", text("name", "{word}")),
		change(life, "POST", "/project/git/init?directory={dir}", nil),
		change(life, "POST", "/experimental/project/{project}/copy", text("name", "{word}", "directory", "{dir}/{word}")),
		change(life, "POST", "/experimental/control-plane/move-session", text("sessionID", "{session}", "destination", map[string]any{"directory": "/tmp"})),
		change(life, "POST", "/experimental/workspace", text("type", "worktree", "branch", "{word}", "extra", nil)),
		change(life, "POST", "/sync/replay", text("directory", "{dir}", "events", []any{})),
		change(life, "POST", "/sync/history", text("{word}", 0)),
		change(life, "POST", "/sync/start", nil),
		change(life, "POST", "/session/{session}/share", nil),

		change(remote, "POST", "/tui/append-prompt", text("text", "{word}")),
		change(remote, "POST", "/tui/show-toast", text("message", "{word}", "variant", "info")),
		change(remote, "POST", "/tui/publish", func(_ *probe, _ *ground, word string) any {
			return map[string]any{"type": "tui.prompt.append", "properties": map[string]any{"text": word}}
		}),
		change(remote, "POST", "/tui/execute-command", text("command", "{word}")),
		change(remote, "POST", "/log", text("service", "verify", "level", "error", "message", "{word}")),
		change(remote, "PATCH", "/session/{session}/message/msg_00000000000000000000000000/part/prt_00000000000000000000000000", text("id", "prt_00000000000000000000000000",
			"messageID", "msg_00000000000000000000000000", "sessionID", "{session}", "type", "text", "text", "{word}")),
		change(remote, "POST", "/global/upgrade", text("target", "0.0.0-{word}")),
		change(remote, "POST", "/instance/dispose", nil),
		change(remote, "POST", "/global/dispose", nil),
	}
}

// with replaces the request of a door.
func (d door) with(make func(p *probe, g *ground, word string) request) door {
	d.change = func(_ context.Context, p *probe, g *ground, word string) request { return make(p, g, word) }
	return d
}

// change makes all requests, and then looks for what they have changed.
func (p *probe) change(ctx context.Context, rows []*Row, changes []int, of map[int]door) {
	done := func(at int, cell Cell) {
		rows[at].Cells = []Cell{cell}
		p.tell(rows[at])
	}
	g, err := p.ground(ctx, p.marker)
	if err != nil {
		for _, at := range changes {
			done(at, broken("no session: %v", err))
		}
		return
	}
	var asked []effect
	for _, at := range changes {
		var random [8]byte
		_, _ = rand.Read(random[:]) // it never fails
		e := effect{word: "tongs-change-" + hex.EncodeToString(random[:])}
		r := of[at].change(ctx, p, g, e.word)
		e.status, e.text, e.err = p.call(ctx, r.method, r.route, r.body)
		asked = append(asked, e)
	}
	where, err := p.whereWords(ctx)
	for _, route := range []string{"/config", "/global/config", "/mcp", "/session", "/project/current"} {
		if _, text, err := p.call(ctx, "GET", route, nil); err == nil {
			where["the answer of GET "+route] = text
		}
	}
	for i, at := range changes {
		e, cell := asked[i], Cell{}
		for place, text := range where {
			if strings.Contains(text, e.word) {
				cell = escaped("it left a trace in %s", place)
			}
		}
		switch {
		case cell.Result != "":
		case p.events.seen(e.word):
			cell = escaped("clients were told of it")
		case strings.HasSuffix(rows[at].Name, "/dispose") && p.events.seen("disposed"):
			cell = escaped("OpenCode's instance was ended")
		case err != nil:
			cell = broken("looking for traces in the agent host: %v", err)
		case strings.HasPrefix(rows[at].Name, "POST /api/session") && e.status == 200 && strings.Contains(e.text, "\"id\""):
			cell = escaped("it answered: %s", clip(e.text, 80))
		default:
			if cell = p.judge(g, e.status, e.text, e.err); cell.Result == Broken && e.err == nil {
				cell = broken("it was accepted (%d), and no effect of it was seen", e.status)
			}
		}
		done(at, cell)
	}
}

// whereWords finds all words of changes in the agent host, by the file whose name or content has them.
func (p *probe) whereWords(ctx context.Context) (map[string]string, error) {
	const script = `{ find /home /tmp /opt/tongs /var -xdev -name '*tongs-change-*' 2>/dev/null | sed 's/\(.*\)\(tongs-change-[0-9a-f]*\).*/\1:\2/'
grep -raoE 'tongs-change-[0-9a-f]{16}' /home /tmp /var 2>/dev/null; } | head -n 2000; exit 0`
	where := map[string]string{}
	found, err := p.agent.Exec(ctx, sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"sh", "-c", script}, Dir: "/"}})
	if err != nil {
		return where, err
	}
	for line := range strings.Lines(string(found.Stdout)) {
		if file, word, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			where["the agent host's "+strings.ReplaceAll(file, p.dir, "…")] += word + " "
		}
	}
	return where, nil
}
