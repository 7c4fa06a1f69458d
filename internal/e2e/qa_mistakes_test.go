package e2e

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestQAMistakes makes the mistakes that people make: each ends at once with one message that names
// what is wrong, and with the exit status that the help gives.
func TestQAMistakes(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, c := range map[string]struct {
		home string // default: a new one
		args []string
		code int
		want []string // in the message
	}{
		"an unknown flag":           {args: []string{"up", "--scriptd"}, code: 2, want: []string{"--scriptd", "--scripted"}},
		"an unknown command":        {args: []string{"upp"}, code: 2, want: []string{"upp", `"up"`}},
		"an argument too many":      {args: []string{"up", "now"}, code: 2, want: []string{"now"}},
		"no such port":              {args: []string{"up", "--listen", "127.0.0.1:99999"}, code: 2, want: []string{"99999", "65535"}},
		"no address":                {args: []string{"up", "--listen", "here"}, code: 2, want: []string{"here", "127.0.0.1:8787"}},
		"open to all, no password":  {args: []string{"up", "--listen", "0.0.0.0:0"}, code: 2, want: []string{"TONGS_PASSWORD"}},
		"a port in use":             {args: []string{"up", "--listen", taken.Addr().String()}, code: 1, want: []string{"in use", "--listen"}},
		"an unknown level":          {args: []string{"up", "--log-level", "loud"}, code: 2, want: []string{"loud", "debug"}},
		"no configuration file":     {args: []string{"up", "--config", filepath.Join(dir, "none.toml")}, code: 2, want: []string{"none.toml"}},
		"an unknown key":            {args: []string{"up", "--config", file("key.toml", "lisen = \"x\"\n", 0o600)}, code: 2, want: []string{"lisen", "line 1"}},
		"no TOML":                   {args: []string{"up", "--config", file("bad.toml", "listen = \n", 0o600)}, code: 2, want: []string{"bad.toml:1"}},
		"no size":                   {args: []string{"up", "--config", file("size.toml", "[sandbox]\nmemory = \"2 bananas\"\n", 0o600)}, code: 2, want: []string{"2 bananas", "512MiB"}},
		"keys that all can read":    {args: []string{"up", "--config", file("keys.toml", "[keys]\nopenai = \"x\"\n", 0o644)}, code: 2, want: []string{"chmod 600"}},
		"a home that is a file":     {home: file("home", "", 0o600), args: []string{"up", "--listen", "127.0.0.1:0"}, code: 1, want: []string{"--home"}},
		"a home that cannot be":     {home: "/proc/tongs", args: []string{"up", "--listen", "127.0.0.1:0"}, code: 1, want: []string{"/proc/tongs", "--home"}},
		"an OpenCode that is not":   {args: []string{"up", "--listen", "127.0.0.1:0", "--opencode-binary", filepath.Join(dir, "opencode")}, code: 1, want: []string{"cannot be found", "--opencode-binary"}},
		"an OpenCode that is other": {args: []string{"up", "--listen", "127.0.0.1:0", "--opencode-binary", "/bin/true"}, code: 1, want: []string{"/bin/true", "1.18.33"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.code == 1 {
				needSandboxes(t) // what comes after the driver
			}
			home := c.home
			if home == "" {
				home = filepath.Join(t.TempDir(), "home")
			}
			got := tongs(t, home, c.args...)
			message := got.stderr
			if i := strings.LastIndex(message, "\ntongs: "); i >= 0 {
				message = message[i+1:]
			}
			if got.code != c.code || !strings.HasPrefix(message, "tongs: ") {
				t.Fatalf("exit status %d, want %d with a message of tongs\n%s%s", got.code, c.code, got.stdout, got.stderr)
			}
			for _, want := range c.want {
				if !strings.Contains(message, want) {
					t.Errorf("the message does not have %q: %s", want, message)
				}
			}
			if lines := strings.Count(strings.TrimSpace(message), "\n"); lines > 1 || strings.Contains(got.stderr, "panic") {
				t.Errorf("that is more than a message:\n%s", got.stderr)
			}
			if c.code == 2 {
				if _, err := os.Stat(home); err == nil {
					t.Error("the home was made")
				}
			}
		})
	}
}
