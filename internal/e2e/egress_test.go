package e2e

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"
)

// online says that a registry's name resolves here; where it doesn't, what needs one is skipped.
func online(t *testing.T, host string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := net.DefaultResolver.LookupHost(ctx, host); err != nil {
		t.Skipf("no way to %s from this machine: %v", host, err)
	}
}

// TestEgress works with real registries from inside a sandbox, and is refused everything else.
func TestEgress(t *testing.T) {
	needSandboxes(t)
	t.Parallel()
	s := up(t, newHome(t))

	t.Run("npm install", func(t *testing.T) {
		online(t, "registry.npmjs.org")
		s := s.in(t)
		session := s.session()
		got := s.bash(session, "npm install --no-audit --no-fund is-number@7.0.0 2>&1 && node -p 'require(\"is-number\")(7)'; npm install -g --no-audit --no-fund semver@7.7.2 2>&1; command -v semver; semver 1.2.3")
		if !strings.Contains(got, "\ntrue\n") || !strings.Contains(got, "/home/user/.local/bin/semver\n1.2.3") {
			t.Errorf("npm said: %s", got)
		}
	})
	t.Run("go mod download", func(t *testing.T) {
		online(t, "proxy.golang.org")
		s := s.in(t)
		session := s.session()
		if strings.Contains(s.bash(session, "command -v go || echo none"), "none") {
			t.Skip("this machine has no Go that sandboxes see")
		}
		got := s.bash(session, "go mod init example.org/x 2>&1 && go get github.com/google/uuid@v1.6.0 2>&1; go mod verify")
		if !strings.Contains(got, "all modules verified") {
			t.Errorf("go said: %s", got)
		}
	})
	t.Run("everything else is refused", func(t *testing.T) {
		s := s.in(t)
		session := s.session()
		for command, want := range map[string]string{
			"curl -sS -m 20 http://forbidden.example/":                       "EGRESS_DENIED",
			"curl -sS -m 20 https://forbidden.example/ 2>&1":                 "curl: (35)",
			"curl -sS -m 20 http://203.0.113.80/":                            "EGRESS_DENIED",
			"curl -sS -m 20 http://169.254.169.254/latest/meta-data/ 2>&1":   "curl: (7)",
			"curl -sS -m 20 http://10.0.0.1/ 2>&1":                           "curl: (7)",
			"curl -sS -m 20 " + s.url + " 2>&1":                              "curl: (7)",
			"curl -sS -m 20 -H 'Host: registry.npmjs.org' http://127.0.0.1/": "",
		} {
			if got := s.bash(session, command+"; true"); want != "" && !strings.Contains(got, want) || strings.Contains(got, "<html") {
				t.Errorf("%s\n%s", command, got)
			}
		}
	})
}
