package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSandboxFromJavaScript sends a real sandbox what harms one, through the public endpoint, with npm's
// client: what the suite of internal/surface can't do to a guest that is not in a sandbox.
func TestSandboxFromJavaScript(t *testing.T) {
	needSandboxes(t)
	t.Parallel()
	dir := webDir(t)
	config := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(config, []byte("[sandbox]\ntmp = \"16MiB\"\nmemory = \"1GiB\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	home := newHome(t)
	s := up(t, home, withArgs("--config", config))
	at := regexp.MustCompile(`(?m)^sandboxes: (\S+)`).FindStringSubmatch(s.output())
	if at == nil {
		t.Fatalf("the endpoint is not named:\n%s", s.output())
	}
	token, err := os.ReadFile(filepath.Join(home, "api-token"))
	if err != nil {
		t.Fatal(err)
	}
	node(t, dir, 7, "sandbox.mjs", at[1], strings.TrimSpace(string(token)))
}
