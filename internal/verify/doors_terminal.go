package verify

import (
	"context"
	"encoding/json"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// terminalDoors are terminals.
func terminalDoors() []door {
	terminal := func(name string, run func(ctx context.Context, p *probe, g *ground, f Family) Cell) door {
		return door{Door: Door{Group: "terminals", Name: name}, run: run}
	}
	return []door{
		terminal("POST /pty with a command", func(ctx context.Context, p *probe, g *ground, _ Family) Cell {
			const effect = "effect-pty"
			status, text, err := p.call(ctx, "POST", "/pty", map[string]any{"command": "/bin/sh", "args": []string{"-c", "touch " + path.Join(p.dir, effect)}, "cwd": p.dir}, "Session", g.session)
			if err != nil || status >= 400 {
				return p.judge(g, status, text, err)
			}
			return p.awaitEffect(ctx, g, effect)
		}),
		terminal("a terminal, typed into", func(ctx context.Context, p *probe, g *ground, _ Family) Cell {
			status, text, err := p.call(ctx, "POST", "/pty", map[string]any{"title": "verify"}, "Session", g.session)
			var made struct{ ID string }
			if err != nil || status >= 400 || json.Unmarshal([]byte(text), &made) != nil {
				return p.judge(g, status, text, err)
			}
			screen, err := p.typeInto(ctx, "/pty/"+made.ID+"/connect", g, "cat "+whereFile+"; exit\n")
			return p.judge(g, 200, screen, err)
		}),
		terminal("POST /pty with a directory of its own", func(ctx context.Context, p *probe, g *ground, _ Family) Cell {
			status, text, err := p.call(ctx, "POST", "/pty?directory="+p.dir, map[string]any{"command": "/bin/sh", "args": []string{"-c", "cat " + whereFile + "; touch effect-pty-dir; sleep 1"}, "cwd": p.dir}, "Session", g.session)
			if err != nil || status >= 400 {
				return p.judge(g, status, text, err)
			}
			return p.awaitEffect(ctx, g, "effect-pty-dir")
		}),
		terminal("GET /pty", func(ctx context.Context, p *probe, g *ground, _ Family) Cell {
			status, text, err := p.call(ctx, "GET", "/pty", nil, "Session", g.session)
			if err == nil && status == 200 && strings.HasPrefix(text, "[") {
				return p.nothing(g, text, nil)
			}
			return p.judge(g, status, text, err)
		}),
		terminal("POST /pty without a session", func(ctx context.Context, p *probe, g *ground, _ Family) Cell {
			status, text, err := p.call(ctx, "POST", "/pty", map[string]any{"command": "/bin/sh", "args": []string{"-c", "touch " + path.Join(p.dir, "effect-pty-nobody")}}, "Session", "ses_00000000000000000000000000")
			return p.judgeEffect(ctx, g, "effect-pty-nobody", status, text, err)
		}),
	}
}

// awaitEffect waits for the effect of a process that was started.
func (p *probe) awaitEffect(ctx context.Context, g *ground, name string) Cell {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if led := p.effectCell(ctx, g, name); led.Result != "" && ctx.Err() == nil {
			return led
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return broken("it was accepted, and its effect is nowhere")
		}
	}
}

// typeInto connects to a terminal, types, and returns what it shows until its end.
func (p *probe) typeInto(ctx context.Context, route string, g *ground, keys string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	request, err := p.request(ctx, "GET", route, nil, "Session", g.session, "Origin", p.t.URL)
	if err != nil {
		return "", err
	}
	conn, response, err := websocket.Dial(ctx, strings.Replace(p.t.URL, "http", "ws", 1)+route, &websocket.DialOptions{HTTPClient: p.t.Client, HTTPHeader: request.Header})
	if err != nil {
		if response != nil && response.StatusCode != http.StatusSwitchingProtocols {
			return response.Status, err
		}
		return "", err
	}
	defer conn.CloseNow()
	conn.SetReadLimit(1 << 20)
	if err := conn.Write(ctx, websocket.MessageText, []byte(keys)); err != nil {
		return "", err
	}
	var screen strings.Builder
	for screen.Len() < 1<<20 {
		kind, data, err := conn.Read(ctx)
		if err != nil {
			return screen.String(), nil // the terminal has ended
		}
		if kind == websocket.MessageText {
			screen.Write(data)
		}
	}
	return screen.String(), nil
}
