package verify

import (
	"context"
	"fmt"
	"strings"
)

func escaped(format string, args ...any) Cell {
	return Cell{Result: Escaped, Evidence: fmt.Sprintf(format, args...)}
}
func broken(format string, args ...any) Cell {
	return Cell{Result: Broken, Evidence: clip(fmt.Sprintf(format, args...), 300)}
}
func refused(format string, args ...any) Cell {
	return Cell{Result: Refused, Evidence: clip(fmt.Sprintf(format, args...), 110)}
}
func inSandbox(evidence string) Cell { return Cell{Result: Sandbox, Evidence: evidence} }

// judge says where an answer comes from.
func (p *probe) judge(g *ground, status int, text string, err error) Cell {
	if err != nil {
		return broken("%v", err)
	}
	if result, seen := p.see(text, g.word); result != "" {
		return Cell{Result: result, Evidence: seen}
	}
	said := message(text)
	switch trimmed := strings.TrimSpace(text); {
	case status >= 500:
		return broken("%d: %s", status, text)
	case status >= 400 && said != "":
		return refused("%d: %s", status, said)
	case trimmed == "" || trimmed == "[]" || trimmed == "{}" || trimmed == "null" || strings.HasSuffix(trimmed, `"data":[]}`) || strings.HasSuffix(trimmed, `"content":""}`):
		return refused("an empty answer")
	}
	if what := denial(text); what != "" {
		return refused("in the sandbox: %s", what)
	}
	return broken("%d without a word of any place: %s", status, text)
}

// judgeTool says where a tool was carried out, by what it shows and, where it has one, by its effect.
func (p *probe) judgeTool(ctx context.Context, g *ground, t part, effect string) Cell {
	seen := Cell{}
	if result, what := p.see(t.shown(), g.word); result != "" {
		seen = Cell{Result: result, Evidence: what}
	}
	if seen.Result == Escaped {
		return seen
	}
	if effect != "" {
		if led := p.effectCell(ctx, g, effect); led.Result != "" {
			return led
		}
	}
	switch {
	case seen.Result != "" && effect == "":
		return seen
	case t.Tool == "invalid":
		return refused("not offered to this model")
	case t.State.Status == "error" && t.State.Error != "":
		return refused("%s", t.State.Error)
	case effect == "" && denial(t.State.Output) != "":
		return refused("in the sandbox: %s", denial(t.State.Output))
	}
	return broken("%s %s: %s%s", t.Tool, t.State.Status, t.State.Error, t.State.Output)
}

// denial is what the kernel of a sandbox, or a tool in it, says of what is not to be had; "" if
// the text says nothing of the kind.
func denial(text string) string {
	for _, what := range []string{"Permission denied", "permission denied", "Operation not permitted", "operation not permitted", "No such file", "no such file", "File not found", "not found", "a link into a process"} {
		if strings.Contains(text, what) {
			return strings.ToLower(what)
		}
	}
	return ""
}

// changedBy names, as an effect, a file that is everywhere and gets a new line where it is changed.
func changedBy(name string) string { return "changed " + name }

// effectCell says where a file was made, or changed; its result is "" when nowhere.
func (p *probe) effectCell(ctx context.Context, g *ground, name string) Cell {
	inside, outside, err := p.places(ctx, g, name)
	switch {
	case err != nil:
		return broken("looking for its effect: %v", err)
	case len(outside) > 0:
		return escaped("it acted in %s", strings.Join(outside, " and "))
	case inside:
		return inSandbox("its effect in the sandbox")
	}
	return Cell{}
}

// judgeEffect is judge for a request whose effect is a file: made inside it is the
// sandbox's, made nowhere the answer has to say that it was refused.
func (p *probe) judgeEffect(ctx context.Context, g *ground, name string, status int, text string, err error) Cell {
	if led := p.effectCell(ctx, g, name); led.Result != "" {
		return led
	}
	cell := p.judge(g, status, text, err)
	if cell.Result == Sandbox {
		return broken("it shows the marker, and its effect is nowhere")
	}
	return cell
}
