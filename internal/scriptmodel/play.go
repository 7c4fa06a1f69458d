package scriptmodel

import (
	"fmt"
	"strings"
)

// ids are the models that are listed. A name that contains "gpt-" makes OpenCode
// offer apply_patch in place of edit and write. Any other name is answered too.
var ids = []string{"scripted", "gpt-5-scripted", "claude-scripted"}

// howTo is the answer to a prompt that has no script.
const howTo = "This is a scripted model: it does not think, it plays back what a prompt tells it to do. " +
	"Give it a JSON list of steps, for example:\n\n" +
	"```tongs-script\n" +
	`[{"tool": "bash", "args": {"command": "uname -a"}}, {"text": "The system is {{last}}"}]` + "\n" +
	"```\n\n" +
	"or ask it for the demonstration: a script random.js that prints a random number from 0 to 100."

// reply decides what the model says next. The references in it are filled in.
func (c *conversation) reply() answer {
	if c.title() {
		return say(c.titleText())
	}
	prompt := c.prompt()
	answers, ok, err := findScript(prompt)
	switch {
	case err != nil:
		return say("The script in the prompt is wrong: " + err.Error() + ".")
	case ok:
		return c.play(answers)
	case wantsDemo(prompt) && len(c.tools) > 0:
		return c.demo()
	}
	return say(howTo)
}

func say(text string) answer { return answer{pieces: []piece{{text: text}}} }

// play returns the answer at the conversation's place in the script.
func (c *conversation) play(answers []answer) answer {
	at := c.position()
	if at >= len(answers) {
		return say(fmt.Sprintf("The script has ended after %d answers.", len(answers)))
	}
	a := answers[at]
	out := answer{refusals: a.refusals, fail: a.fail}
	for _, p := range a.pieces {
		text, err := c.expand(p.text)
		if err != nil {
			return say("The script cannot go on: " + err.Error() + ".")
		}
		out.pieces = append(out.pieces, piece{text: text, delay: p.delay})
	}
	for _, k := range a.calls {
		args, err := c.expandArgs(k.Args)
		if err != nil {
			return say("The script cannot go on: " + err.Error() + ".")
		}
		out.calls = append(out.calls, call{Tool: k.Tool, Args: args})
	}
	return out
}

// titleText makes a title of the first words of the first prompt.
func (c *conversation) titleText() string {
	for _, t := range c.turns {
		text := strings.TrimSpace(t.text)
		if t.role != user || text == "" || strings.HasPrefix(text, "Generate a title") {
			continue
		}
		if wantsDemo(text) {
			return "Random number script"
		}
		if _, ok, _ := findScript(text); !ok {
			return clip(strings.Join(firstWords(text, 6), " "), 50)
		}
	}
	return "Scripted session"
}

func firstWords(text string, n int) []string {
	words := strings.Fields(text[:min(len(text), 1000)])
	return words[:min(len(words), n)]
}
