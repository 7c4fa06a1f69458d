package scriptmodel

import (
	"slices"
	"strings"
)

// conversation is a request in terms that both protocols share.
type conversation struct {
	model  string
	stream bool
	usage  bool // chat completions: a usage chunk is wanted
	system string
	tools  []string // names offered
	turns  []turn
	size   int // bytes of the request
}

type role int

const (
	user role = iota
	assistant
	toolResult
)

// turn is one message. Everything that the assistant said in one answer is one turn.
type turn struct {
	role role
	text string
}

// add appends a turn; system texts are kept apart.
func (c *conversation) add(r role, text string) {
	c.turns = append(c.turns, turn{r, text})
}

func (c *conversation) addSystem(text string) {
	if c.system != "" {
		c.system += "\n\n"
	}
	c.system += text
}

// attached are the beginnings of the user messages that OpenCode puts behind tool
// results by itself: they belong to the turn that is under way.
var attached = []string{
	"Attached image(s) from tool result",
	"Attached media from tool result",
	"Summarize the task tool output above",
}

// start returns the index of the last message that a person wrote, or -1.
func (c *conversation) start() int {
	for i, t := range slices.Backward(c.turns) {
		if t.role != user {
			continue
		}
		inside := i > 0 && c.turns[i-1].role != user && (strings.TrimSpace(t.text) == "" ||
			slices.ContainsFunc(attached, func(p string) bool { return strings.HasPrefix(strings.TrimSpace(t.text), p) }))
		if !inside {
			return i
		}
	}
	return -1
}

// prompt returns the text of the last prompt.
func (c *conversation) prompt() string {
	if i := c.start(); i >= 0 {
		return c.turns[i].text
	}
	return ""
}

// position is the number of answers given since the prompt.
func (c *conversation) position() int {
	n := 0
	for _, t := range c.turns[c.start()+1:] {
		if t.role == assistant {
			n++
		}
	}
	return n
}

// results are the texts of the tool results since the prompt.
func (c *conversation) results() []string {
	var out []string
	for _, t := range c.turns[c.start()+1:] {
		if t.role == toolResult {
			out = append(out, t.text)
		}
	}
	return out
}

// offers says whether the request offers the tool.
func (c *conversation) offers(tool string) bool { return slices.Contains(c.tools, tool) }

// title says whether a short title for the conversation is asked for.
func (c *conversation) title() bool {
	if len(c.tools) > 0 {
		return false
	}
	if strings.Contains(strings.ToLower(c.system), "title generator") {
		return true
	}
	return slices.ContainsFunc(c.turns, func(t turn) bool {
		return t.role == user && strings.HasPrefix(strings.TrimSpace(t.text), "Generate a title")
	})
}
