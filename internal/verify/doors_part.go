package verify

import (
	"context"
	"encoding/base64"
	"path"
	"strings"

	"github.com/tongs-dev/tongs/sandbox"
)

// partDoors are files that a prompt brings along.
func partDoors() []door {
	one := func(name, mime string, link func(p *probe) string) door {
		return door{Door: Door{Group: "files of a prompt", Name: name}, run: func(ctx context.Context, p *probe, g *ground, _ Family) Cell {
			return p.attach(ctx, g, map[string]any{"type": "file", "mime": mime, "filename": "file", "url": link(p)})
		}}
	}
	project := func(name string) func(*probe) string {
		return func(p *probe) string { return "file://" + p.t.Project + "/" + name }
	}
	text := one("@file", "text/plain", project(whereFile))
	text.Quick = true
	return []door{
		text,
		one("@file with lines", "text/plain", project(whereFile+"?start=1&end=1")),
		one("@file outside of the project", "text/plain", func(p *probe) string { return "file://" + path.Join(p.dir, whereFile) }),
		one("@file by way of ..", "text/plain", func(p *probe) string { return "file://" + p.t.Project + "/../../.." + path.Join(p.dir, whereFile) }),
		one("@directory", "application/x-directory", project("")),
		one("@picture", "image/png", project("picture.png")),
		one("@file that is not text", "application/octet-stream", project(whereFile)),
		one("@file of /proc", "text/plain", func(*probe) string { return "file:///proc/self/environ" }).expectNothing(),
		one("file of OpenCode itself", "text/plain", func(*probe) string { return "file:///home/user/.tongs/bridge.token" }).expectNothing(),
		one("http: URL", "text/plain", func(p *probe) string { return "http://127.0.0.1:" + p.port + "/" }),
		one("file: URL with a host", "text/plain", func(p *probe) string { return "file://elsewhere" + path.Join(p.dir, whereFile) }),
		{Door: Door{Group: "files of a prompt", Name: "resource of an MCP server"}, run: func(ctx context.Context, p *probe, g *ground, _ Family) Cell {
			return p.attach(ctx, g, map[string]any{"type": "file", "mime": "text/plain", "filename": "file", "url": "file://" + path.Join(p.dir, whereFile),
				"source": map[string]any{"type": "resource", "clientName": "x", "uri": "file://" + path.Join(p.dir, whereFile), "text": map[string]any{"value": "x", "start": 0, "end": 1}}})
		}},
		{Door: Door{Group: "files of a prompt", Name: "content that no provider takes, then the next prompt"}, run: func(ctx context.Context, p *probe, g *ground, _ Family) Cell {
			cell := p.attach(ctx, g, map[string]any{"type": "file", "mime": "application/zip", "filename": "file.zip", "url": "data:application/zip;base64," + base64.StdEncoding.EncodeToString([]byte("PK\x03\x04\x00\xff"))})
			if cell.Result != Refused {
				return cell
			}
			next := p.attach(ctx, g, map[string]any{"type": "file", "mime": "text/plain", "filename": "file", "url": "file://" + p.t.Project + "/" + whereFile})
			if next.Result != Sandbox {
				return broken("the next prompt: %s", next.Evidence)
			}
			return cell
		}},
	}
}

// attach sends a prompt that nobody answers with a part, and looks at what OpenCode made of it.
func (p *probe) attach(ctx context.Context, g *ground, file map[string]any) Cell {
	status, text, err := p.call(ctx, "POST", "/session/"+g.session+"/message", map[string]any{"noReply": true, "parts": []any{map[string]any{"type": "text", "text": "look"}, file}})
	return p.judge(g, status, text, err)
}

// expectNothing is for a door behind which there is no word: showing something is broken,
// unless it is what the sandbox says that it is.
func (d door) expectNothing() door {
	inner := d.run
	d.run = func(ctx context.Context, p *probe, g *ground, f Family) Cell {
		cell := inner(ctx, p, g, f)
		if cell.Result != Broken {
			return cell
		}
		for _, bad := range []string{"OPENCODE_", "bridge", "TONGS_BRIDGE"} { // what is only in the agent host
			if strings.Contains(cell.Evidence, bad) && !strings.Contains(cell.Evidence, "not found") {
				return escaped("it shows what is in the agent host alone: %s", clip(cell.Evidence, 100))
			}
		}
		return refused("%s", "no word of any place: the sandbox has nothing there")
	}
	return d
}

// fileDoors are the routes for files, search and git of a directory.
func fileDoors() []door {
	get := func(name, route string, quick bool) door {
		return door{Door: Door{Group: "files, search and git", Name: name, Quick: quick}, run: func(ctx context.Context, p *probe, g *ground, _ Family) Cell {
			route := strings.NewReplacer("{dir}", p.dir, "{marker}", g.word.text[:13], "{project}", p.t.Project).Replace(route)
			status, text, err := p.call(ctx, "GET", route, nil, "Session", g.session)
			return p.judge(g, status, text, err)
		}}
	}
	list := []door{
		get("GET /file", "/file?path=", true),
		get("GET /file, another directory by query", "/file?path=&directory={dir}", false),
		get("GET /file out of the project", "/file?path=../../..{dir}", false),
		get("GET /file/content", "/file/content?path="+whereFile, true),
		get("GET /file/content out of the project", "/file/content?path=../../..{dir}/"+whereFile, false),
		get("GET /file/content of an absolute path", "/file/content?path={dir}/"+whereFile, false),
		get("GET /file/content of a picture", "/file/content?path=picture.png", false),
		get("GET /file/status", "/file/status", true),
		get("GET /find", "/find?pattern=tongs-", true),
		get("GET /find with a path in the pattern", "/find?pattern=tongs-&directory={dir}", false),
		get("GET /find/file", "/find/file?query=tongs-", true),
		get("GET /find/symbol", "/find/symbol?query=tongs", true),
		get("GET /api/fs/find", "/api/fs/find?query=tongs-", true),
		get("GET /api/fs/find in another directory", "/api/fs/find?query=where&location[directory]={dir}", false),
		get("GET /api/fs/list", "/api/fs/list?path=&location[directory]={dir}", true),
		get("GET /api/fs/read", "/api/fs/read/"+whereFile, true),
		get("GET /vcs/status", "/vcs/status", true),
		get("GET /vcs/diff", "/vcs/diff?mode=git", true),
		get("GET /vcs/diff/raw", "/vcs/diff/raw", true),
	}
	for i := range list {
		if strings.HasPrefix(list[i].Name, "GET /find/file") || strings.HasPrefix(list[i].Name, "GET /api/fs/find in") {
			list[i] = list[i].namesOnly()
		}
	}
	return append(list,
		door{Door: Door{Group: "files, search and git", Name: "GET /vcs"}, run: func(ctx context.Context, p *probe, g *ground, _ Family) Cell {
			branch := sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"git", "checkout", "-q", "-b", g.word.text}}}
			if _, err := g.box.Exec(ctx, branch); err != nil {
				return broken("%v", err)
			}
			status, text, err := p.call(ctx, "GET", "/vcs", nil, "Session", g.session)
			return p.judge(g, status, text, err)
		}},
		door{Door: Door{Group: "files, search and git", Name: "POST /vcs/apply"}, run: func(ctx context.Context, p *probe, g *ground, _ Family) Cell {
			name := "applied-" + g.word.text
			patch := "diff --git a/" + name + " b/" + name + "\nnew file mode 100644\n--- /dev/null\n+++ b/" + name + "\n@@ -0,0 +1 @@\n+x\n"
			status, text, err := p.call(ctx, "POST", "/vcs/apply", map[string]any{"patch": patch}, "Session", g.session)
			file := path.Join(p.t.Project, name)
			if found, err := exists(ctx, p.agent, file); err != nil || found {
				_ = p.agent.RemoveFile(ctx, file, false)
				return escaped("it acted in the agent host (%v)", err)
			}
			if found, err := exists(ctx, g.box, file); err == nil && found {
				return inSandbox("its effect in the sandbox")
			}
			return p.judge(g, status, text, err)
		}},
		door{Door: Door{Group: "files, search and git", Name: "GET /path"}, run: func(ctx context.Context, p *probe, g *ground, _ Family) Cell {
			status, text, err := p.call(ctx, "GET", "/path", nil, "Session", g.session, "X-Opencode-Directory", p.dir)
			if err == nil && status == 200 && strings.Contains(text, `"`+p.t.Project+`"`) && !strings.Contains(text, p.dir) {
				return refused("the project's path, whatever directory is named")
			}
			return p.judge(g, status, text, err)
		}},
		door{Door: Door{Group: "files, search and git", Name: "a directory with a plugin, named by a header"}, run: func(ctx context.Context, p *probe, g *ground, _ Family) Cell {
			evil := path.Join(p.dir, "evil")
			var all string
			for _, route := range []string{"/config", "/experimental/tool/ids", "/agent", "/command"} {
				_, text, err := p.call(ctx, "GET", route+"?directory="+evil, nil, "X-Opencode-Directory", evil)
				if err != nil {
					return broken("%v", err)
				}
				all += text
			}
			if led := p.effectCell(ctx, g, "effect-evil-plugin"); led.Result != "" {
				return led
			}
			return p.nothing(g, all, nil)
		}},
	)
}

// namesOnly is for a door that shows names by a search of its own: one that shows the
// sandbox's file by another name than the marker is still the sandbox's.
func (d door) namesOnly() door {
	inner := d.run
	d.run = func(ctx context.Context, p *probe, g *ground, f Family) Cell {
		cell := inner(ctx, p, g, f)
		if cell.Result == Broken && strings.Contains(cell.Evidence, whereFile) {
			return refused("only names that are in every place")
		}
		return cell
	}
	return d
}
