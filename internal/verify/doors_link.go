package verify

import (
	"context"
	"path"
	"strings"
)

// linkDoors are names in a sandbox that point out of it, used through each way to read and write.
func linkDoors() []door {
	link := func(name string, run func(ctx context.Context, p *probe, g *ground, f Family) Cell) door {
		return door{Door: Door{Group: "links out of the sandbox", Name: "a link, followed by " + name}, run: run}
	}
	// each follows the links to all targets, and the worst of what they show counts.
	each := func(name string, model bool, targets func(p *probe) []string, how func(ctx context.Context, p *probe, g *ground, f Family, links []string) []Cell) door {
		d := link(name, func(ctx context.Context, p *probe, g *ground, f Family) Cell {
			var links []string
			for i, target := range targets(p) {
				links = append(links, path.Join(p.t.Project, strings.NewReplacer(" ", "-", "/", "-", ":", "-").Replace(name)+"-"+string(rune('a'+i))))
				if err := g.box.Symlink(ctx, target, links[i]); err != nil {
					return broken("%v", err)
				}
			}
			worst := Cell{}
			for i, cell := range how(ctx, p, g, f, links) {
				cell.Evidence += " (" + strings.ReplaceAll(targets(p)[i], p.dir, "…") + ")"
				if worst.Result == "" || badness(cell.Result) > badness(worst.Result) {
					worst = cell
				}
			}
			return worst
		})
		d.model = model
		return d
	}
	tool := func(name string, targets func(p *probe) []string, effect string, args func(link string) map[string]any) door {
		return each(name, true, targets, func(ctx context.Context, p *probe, g *ground, f Family, links []string) []Cell {
			var calls []step
			for _, l := range links {
				calls = append(calls, toolStep(name, args(l)))
			}
			parts, _, err := p.turn(ctx, g.session, prompt(f, []step{{"tools": calls}, {"text": "done"}}))
			if err != nil || len(parts) != len(links) {
				return []Cell{broken("%d calls: %v", len(parts), err)}
			}
			var cells []Cell
			for _, one := range parts {
				cell := p.judgeTool(ctx, g, one, effect)
				if cell.Result == Broken && strings.Contains(one.State.Output, "No files found") {
					cell = refused("nothing was found")
				}
				cells = append(cells, cell)
			}
			return cells
		})
	}
	ask := func(name string, targets func(p *probe) []string, how func(ctx context.Context, p *probe, g *ground, link string) Cell) door {
		return each(name, false, targets, func(ctx context.Context, p *probe, g *ground, _ Family, links []string) []Cell {
			var cells []Cell
			for _, l := range links {
				cells = append(cells, how(ctx, p, g, l))
			}
			return cells
		})
	}
	// What is behind each is the sandbox's file, or nothing that the sandbox's user may have.
	files := func(p *probe) []string {
		file := path.Join(p.dir, whereFile)
		return []string{file, "/proc/1/root" + file, "/proc/self/root" + file, "/proc/1/cwd/../../../.." + file, "../../../../../.." + file}
	}
	dirs := func(p *probe) []string { return []string{p.dir, "/proc/1/root" + p.dir, "/proc/self/root" + p.dir} }
	get := func(name, route string, targets func(p *probe) []string) door {
		return ask(name, targets, func(ctx context.Context, p *probe, g *ground, link string) Cell {
			status, text, err := p.call(ctx, "GET", route+path.Base(link), nil, "Session", g.session)
			return p.judge(g, status, text, err)
		})
	}
	return []door{
		tool("read", files, "", func(l string) map[string]any { return map[string]any{"filePath": l} }),
		tool("grep", dirs, "", func(l string) map[string]any {
			return map[string]any{"pattern": "^tongs-[a-z-]+[0-9a-f]{16}", "path": l}
		}),
		tool("glob", dirs, "", func(l string) map[string]any { return map[string]any{"pattern": "tongs-*", "path": l} }),
		tool("bash", files, "", func(l string) map[string]any {
			return map[string]any{"command": "cat '" + l + "'", "description": "follow a link"}
		}),
		tool("write", func(p *probe) []string {
			return []string{path.Join(p.dir, "effect-link"), "/proc/1/root" + path.Join(p.dir, "effect-link")}
		}, "effect-link", func(l string) map[string]any { return map[string]any{"filePath": l, "content": "x"} }),
		get("GET /file/content", "/file/content?path=", files),
		get("GET /file", "/file?path=", dirs),
		ask("@file", files, func(ctx context.Context, p *probe, g *ground, link string) Cell {
			return p.attach(ctx, g, map[string]any{"type": "file", "mime": "text/plain", "filename": "file", "url": "file://" + link})
		}),
	}
}
