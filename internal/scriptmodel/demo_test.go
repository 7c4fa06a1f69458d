package scriptmodel_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

const demoPrompt = "Could you make me a Node script called random.js? It should print a number between 0 and 100. Run it and tell me."

func TestDemoReportsWhatTheToolsSaid(t *testing.T) {
	every(t, func(t *testing.T, c *client) {
		c.user(demoPrompt)
		write := c.ask()
		content, _ := write.Calls[0].Args["content"].(string)
		if write.Calls[0].Name != "write" || write.Calls[0].Args["filePath"] != "random.js" || !strings.Contains(content, "Math.random") {
			t.Fatalf("first call: %+v", write.Calls)
		}
		c.result(write.Calls[0], "Wrote file successfully.")
		run := c.ask()
		if run.Calls[0].Name != "bash" || run.Calls[0].Args["command"] != "node random.js" {
			t.Fatalf("second call: %+v", run.Calls)
		}
		c.result(run.Calls[0], "42\n")
		read := c.ask()
		if read.Calls[0].Name != "read" || read.Calls[0].Args["filePath"] != "random.js" {
			t.Fatalf("third call: %+v", read.Calls)
		}
		c.result(read.Calls[0], "<path>/p/random.js</path>\n<type>file</type>\n<content>\n1: // what is there\n2: \n3: console.log(42)\n\n(End of file - total 3 lines)\n</content>")
		last := c.ask()
		if len(last.Calls) != 0 || !strings.Contains(last.Text, "**42**") || !strings.Contains(last.Text, "// what is there\n\nconsole.log(42)\n```") {
			t.Errorf("report: %+v", last)
		}
	})
}

func TestDemoDoesNotMakeNumbersUp(t *testing.T) {
	t.Parallel()
	c := newClient(t, "chat", true)
	c.user("print a random number, please")
	for _, result := range []string{"Wrote file successfully.", "bash: node: command not found", "File not found: /p/random.js"} {
		c.result(c.ask().Calls[0], result)
	}
	last := c.ask()
	if !strings.Contains(last.Text, "no number") || !strings.Contains(last.Text, "node: command not found") || !strings.Contains(last.Text, "File not found") {
		t.Errorf("report: %q", last.Text)
	}
}

func TestDemoUsesTheToolsOffered(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		tools []string
		call  string
		arg   string
		has   string
	}{
		{[]string{"apply_patch", "bash", "read"}, "apply_patch", "patchText", "*** Add File: random.js\n+// Prints"},
		{[]string{"bash"}, "bash", "command", "cat > random.js <<'EOF'\n"},
		{[]string{"todowrite"}, "", "", ""},
	} {
		c := newClient(t, "responses", true)
		c.model, c.tools = "gpt-5-scripted", tc.tools
		c.user(demoPrompt)
		got := c.ask()
		if tc.call == "" {
			if len(got.Calls) != 0 || !strings.Contains(got.Text, "none is offered") {
				t.Errorf("%v: %+v", tc.tools, got)
			}
			continue
		}
		arg, _ := got.Calls[0].Args[tc.arg].(string)
		if got.Calls[0].Name != tc.call || !strings.Contains(arg, tc.has) {
			t.Errorf("%v: %+v", tc.tools, got.Calls)
		}
	}
}

func TestTitle(t *testing.T) {
	every(t, func(t *testing.T, c *client) {
		c.tools, c.system = nil, "You are a title generator. You output ONLY a thread title."
		c.user("Generate a title for this conversation:\n")
		c.user(demoPrompt)
		if got := c.ask(); got.Text != "Random number script" {
			t.Errorf("title %q", got.Text)
		}
		c.items = c.items[:1]
		c.user(`[{"error":{"status":500}}]`)
		if got := c.ask(); got.Text != "Scripted session" {
			t.Errorf("title %q", got.Text)
		}
		c.items = c.items[:1]
		c.user("Sort the files of this folder by their size, now")
		if got := c.ask(); got.Text != "Sort the files of this folder" {
			t.Errorf("title %q", got.Text)
		}
	})
}

func contextWithTimeout(t testing.TB, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}

func mustJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func clip(s string) string { return s[:min(len(s), 60)] }
