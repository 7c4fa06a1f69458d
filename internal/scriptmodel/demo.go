package scriptmodel

import (
	"fmt"
	"regexp"
	"strings"
)

// demoFile is the program that the demonstration writes.
const demoFile = "// Prints a random whole number from 0 to 100.\n" +
	"console.log(Math.floor(Math.random() * 101));\n"

var (
	demoWords = regexp.MustCompile(`(?i)random\.js|random\s+number`)
	oneNumber = regexp.MustCompile(`(?m)^\s*(\d{1,3})\s*$`)
	numbered  = regexp.MustCompile(`(?m)^\s*\d+[:|\t] ?(.*)$`)
)

// wantsDemo recognises the demonstration's task in any wording.
func wantsDemo(prompt string) bool { return demoWords.MatchString(prompt) }

// demo plays the demonstration with the tools that are offered: write the file, run
// it, read it, report. What it reports comes from the tools' results alone.
func (c *conversation) demo() answer {
	results := c.results()
	switch c.position() {
	case 0:
		k, ok := c.writeCall()
		if !ok {
			return say("The demonstration needs one of the tools write, apply_patch and bash, and none is offered.")
		}
		return answer{pieces: []piece{{text: "I write random.js first."}}, calls: []call{k}}
	case 1:
		if !c.offers("bash") {
			return say("random.js is written, and cannot be run: the tool bash is not offered.")
		}
		return answer{pieces: []piece{{text: "Now I run it."}}, calls: []call{bashCall("node random.js")}}
	case 2:
		k := bashCall("cat random.js")
		if c.offers("read") {
			args, _ := encode(map[string]string{"filePath": "random.js"})
			k = call{Tool: "read", Args: args}
		}
		return answer{pieces: []piece{{text: "And I read the file back."}}, calls: []call{k}}
	}
	if len(results) < 3 {
		return say(fmt.Sprintf("The demonstration did not come to its end: %d of 3 tool results came back.", len(results)))
	}
	run, file := results[len(results)-2], results[len(results)-1]
	var b strings.Builder
	if m := oneNumber.FindStringSubmatch(run); m != nil {
		fmt.Fprintf(&b, "random.js printed the random number **%s**.\n\n", m[1])
	} else {
		fmt.Fprintf(&b, "random.js printed no number. Running it gave:\n\n```\n%s\n```\n\n", clip(strings.TrimSpace(run), 2000))
	}
	fmt.Fprintf(&b, "The file random.js:\n\n```js\n%s\n```", fileBody(file))
	return say(b.String())
}

// writeCall writes the demonstration's file with what is offered. OpenCode offers
// apply_patch instead of write to the GPT-5 family.
func (c *conversation) writeCall() (call, bool) {
	switch {
	case c.offers("write"):
		args, _ := encode(map[string]string{"filePath": "random.js", "content": demoFile})
		return call{Tool: "write", Args: args}, true
	case c.offers("apply_patch"):
		patch := "*** Begin Patch\n*** Add File: random.js\n"
		for line := range strings.Lines(demoFile) {
			patch += "+" + line
		}
		args, _ := encode(map[string]string{"patchText": patch + "*** End Patch"})
		return call{Tool: "apply_patch", Args: args}, true
	case c.offers("bash"):
		return bashCall("cat > random.js <<'EOF'\n" + demoFile + "EOF"), true
	}
	return call{}, false
}

func bashCall(command string) call {
	args, _ := encode(map[string]string{"command": command, "description": "Demonstration"})
	return call{Tool: "bash", Args: args}
}

// fileBody takes a file's text out of a result of read, which numbers the lines and
// puts the text between <content> tags; any other result is taken as it is.
func fileBody(result string) string {
	if _, rest, ok := strings.Cut(result, "<content>"); ok {
		if body, _, ok := strings.Cut(rest, "</content>"); ok {
			var lines []string
			for _, m := range numbered.FindAllStringSubmatch(body, -1) {
				lines = append(lines, m[1])
			}
			if len(lines) > 0 {
				return strings.Join(lines, "\n")
			}
		}
	}
	return clip(strings.TrimSpace(result), 8000)
}
