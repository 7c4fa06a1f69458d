package verify

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"path"
)

func idsOf(list string) ([]string, error) {
	var found []struct{ ID string }
	if err := json.Unmarshal([]byte(list), &found); err != nil {
		return nil, fmt.Errorf("it is not a list: %s", clip(list, 100))
	}
	var ids []string
	for _, f := range found {
		ids = append(ids, f.ID)
	}
	return ids, nil
}

// personDoors are what a person types: commands, slash commands, subtasks.
func personDoors() []door {
	person := func(name string, run func(ctx context.Context, p *probe, g *ground, f Family) Cell) door {
		return door{Door: Door{Group: "what a person types", Name: name}, run: run}
	}
	model := func(name string, run func(ctx context.Context, p *probe, g *ground, f Family) Cell) door {
		d := person(name, run)
		d.model = true
		return d
	}
	shell := person("!command", func(ctx context.Context, p *probe, g *ground, f Family) Cell {
		status, text, err := p.call(ctx, "POST", "/session/"+g.session+"/shell", map[string]any{"agent": "build", "command": "cat " + whereFile + "; touch " + path.Join(p.dir, "effect-shell")})
		return p.judgeEffect(ctx, g, "effect-shell", status, text, err).orMarker(p, g, text)
	})
	shell.Quick = true
	command := model("!`command` in the template of a slash command", func(ctx context.Context, p *probe, g *ground, f Family) Cell {
		return p.slash(ctx, g, f, p.t.Command, "", whereFile)
	})
	command.command = true
	return []door{
		shell,
		person("!command with another directory", func(ctx context.Context, p *probe, g *ground, _ Family) Cell {
			status, text, err := p.call(ctx, "POST", "/session/"+g.session+"/shell?directory="+url.QueryEscape(p.dir), map[string]any{"agent": "build", "command": "cat " + path.Join(p.dir, whereFile)}, "X-Opencode-Directory", url.PathEscape(p.dir))
			return p.judge(g, status, text, err)
		}),
		person("!command in a session of nobody", func(ctx context.Context, p *probe, g *ground, _ Family) Cell {
			status, text, err := p.call(ctx, "POST", "/session/ses_00000000000000000000000000/shell", map[string]any{"agent": "build", "command": "touch " + path.Join(p.dir, "effect-nobody")})
			return p.judgeEffect(ctx, g, "effect-nobody", status, text, err)
		}),
		command,
		model("!`command` in the arguments of a slash command", func(ctx context.Context, p *probe, g *ground, f Family) Cell {
			return p.slash(ctx, g, f, "init", "!`cat "+path.Join(p.dir, whereFile)+" && touch "+path.Join(p.dir, "effect-arguments")+"`", "effect-arguments")
		}),
		model("@path in the arguments of a slash command", func(ctx context.Context, p *probe, g *ground, f Family) Cell {
			return p.slash(ctx, g, f, "init", "look at @"+path.Join(p.dir, whereFile)+" and @"+whereFile, "")
		}),
		model("@path in a subtask", func(ctx context.Context, p *probe, g *ground, f Family) Cell {
			script := fmt.Sprintf(`[{"tool":"bash","args":{"command":"cat %s","description":"where am I"}},{"text":"done"}]`, whereFile)
			body := prompt(f, []step{{"text": "done"}}, map[string]any{"type": "subtask", "agent": "general", "description": "look",
				"prompt": "Look at @" + path.Join(p.dir, whereFile) + " and @" + whereFile + " and do " + script, "model": map[string]string{"providerID": f.Provider, "modelID": f.Model}})
			if _, _, err := p.turn(ctx, g.session, body); err != nil {
				return broken("%v", err)
			}
			return p.judgeChildren(ctx, g, part{})
		}),
		model("@path and !`command` in a prompt's text", func(ctx context.Context, p *probe, g *ground, f Family) Cell {
			body := prompt(f, []step{{"text": "{{prompt}}"}}, map[string]any{"type": "text", "text": "@" + path.Join(p.dir, whereFile) + " !`cat " + whereFile + "`"})
			_, texts, err := p.turn(ctx, g.session, body)
			return p.nothing(g, texts, err)
		}),
	}
}

// orMarker takes the marker in an answer for what a missing effect left open.
func (c Cell) orMarker(p *probe, g *ground, text string) Cell {
	if c.Result != Sandbox {
		return c
	}
	if result, seen := p.see(text, g.word); result == Escaped {
		return escaped("%s", seen)
	}
	return c
}

// nothing is the judgement of a text that must show no word at all.
func (p *probe) nothing(g *ground, text string, err error) Cell {
	if result, seen := p.see(text, g.word); result != "" {
		return Cell{Result: result, Evidence: seen}
	}
	if err != nil {
		return broken("%v", err)
	}
	return refused("a text and no more")
}

// slash runs a slash command and looks at the whole conversation, and at the effect if one is named.
func (p *probe) slash(ctx context.Context, g *ground, f Family, name, arguments, effect string) Cell {
	status, text, err := p.call(ctx, "POST", "/session/"+g.session+"/command", map[string]any{"command": name, "arguments": arguments, "model": f.Provider + "/" + f.Model})
	if err == nil && status >= 400 {
		return p.judge(g, status, text, err)
	}
	_, history, err2 := p.call(ctx, "GET", "/session/"+g.session+"/message", nil)
	if err == nil {
		err = err2
	}
	if effect != "" && effect != whereFile {
		if led := p.effectCell(ctx, g, effect); led.Result != "" {
			return led
		}
	}
	if effect == whereFile { // the marker has to be in what the command printed
		return p.judge(g, status, lastUser(history), err)
	}
	return p.nothing(g, lastUser(history), err)
}

// lastUser is the newest message of a person in a conversation, as JSON.
func lastUser(history string) string {
	var all []struct {
		Info struct {
			Role string `json:"role"`
		} `json:"info"`
		Parts json.RawMessage `json:"parts"`
	}
	if json.Unmarshal([]byte(history), &all) != nil {
		return history
	}
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Info.Role == "user" {
			return string(all[i].Parts)
		}
	}
	return ""
}
