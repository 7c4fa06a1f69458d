package image

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fakeHost makes an /etc and a home, and a configuration that uses them.
func fakeHost(t *testing.T) (HostConfig, string, string) {
	t.Helper()
	dir := t.TempDir()
	etc, home := filepath.Join(dir, "etc"), filepath.Join(dir, "home")
	write := func(p, data string, mode os.FileMode) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(data), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(p, mode); err != nil {
			t.Fatal(err)
		}
	}
	write(etc+"/ssl/certs/ca-certificates.crt", "PEM", 0o644)
	write(etc+"/ssl/certs/private.pem", "KEY", 0o600)
	write(etc+"/ssl/private/key.pem", "KEY", 0o644)
	write(etc+"/shadow", "root:hash", 0o644)
	write(etc+"/passwd", "root:x:0:0:the host's:/root:/bin/sh", 0o644)
	write(etc+"/npmrc", "token=secret", 0o644)
	write(etc+"/ld.so.conf.d/a.conf", "/usr/lib/a", 0o644)
	write(etc+"/elsewhere.pem", "PEM 2", 0o644)
	write(home+"/.nvm/versions/node/v20/bin/node", "#!", 0o755)
	write(home+"/.nvm/credentials", "secret", 0o644)
	write(home+"/.local/bin/tool", "#!", 0o755)
	write(home+"/.ssh/id", "secret", 0o600)
	for link, to := range map[string]string{
		etc + "/ssl/certs/local.pem":  "../../elsewhere.pem",
		etc + "/ssl/certs/usr.pem":    "/usr/bin/env",
		etc + "/ssl/certs/same.pem":   "ca-certificates.crt",
		etc + "/ssl/certs/key.pem":    home + "/.ssh/id",
		etc + "/ssl/certs/shadow.pem": "/nonexistent",
	} {
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
	}
	return HostConfig{
		Dir: filepath.Join(dir, "images"), etc: etc, homes: []string{home},
		Environ: []string{
			"PATH=/usr/bin:" + home + "/.nvm/versions/node/v20/bin:" + home + "/.local/bin:relative:" + dir,
			"SSL_CERT_FILE=" + etc + "/elsewhere.pem", "SECRET=x", "NODE_EXTRA_CA_CERTS=/nonexistent.pem",
		},
	}, etc, home
}

func TestHost(t *testing.T) {
	t.Parallel()
	cfg, _, home := fakeHost(t)
	root, notes, err := Host(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if len(root.Lower) != 1 || filepath.Base(root.Lower[0]) != root.ID || !strings.HasPrefix(root.ID, "host-") {
		t.Errorf("root %+v", root)
	}
	read := func(p string) string {
		data, err := os.ReadFile(filepath.Join(root.Lower[0], p))
		if err != nil {
			return ""
		}
		return string(data)
	}
	link := func(p string) string {
		to, err := os.Readlink(filepath.Join(root.Lower[0], p))
		if err != nil {
			return ""
		}
		return to
	}
	for p, want := range map[string]string{
		"etc/ssl/certs/ca-certificates.crt": "PEM",
		"etc/ssl/certs/local.pem":           "PEM 2",
		"etc/ssl/certs/private.pem":         "",
		"etc/ssl/certs/key.pem":             "",
		"etc/ssl/private/key.pem":           "",
		"etc/shadow":                        "",
		"etc/npmrc":                         "",
		"etc/ld.so.conf.d/a.conf":           "/usr/lib/a",
		"etc/ssl/tongs/1-elsewhere.pem":     "PEM 2",
		"etc/hostname":                      "sandbox\n",
	} {
		if got := read(p); got != want {
			t.Errorf("%s holds %q, want %q", p, got, want)
		}
	}
	if got := read("etc/passwd"); strings.Contains(got, "the host's") || !strings.Contains(got, "user:x:1000:1000:") {
		t.Errorf("passwd: %q", got)
	}
	for p, want := range map[string]string{
		"etc/ssl/certs/usr.pem": "/usr/bin/env", "etc/ssl/certs/same.pem": "ca-certificates.crt", "etc/ssl/certs/shadow.pem": "", "etc/mtab": "/proc/self/mounts",
	} {
		if got := link(p); got != want {
			t.Errorf("%s leads to %q, want %q", p, got, want)
		}
	}
	node := home + "/.nvm/versions/node/v20"
	if !slices.Contains(root.Binds, Bind{node, node}) || !slices.Contains(root.Binds, Bind{"/usr", "/usr"}) {
		t.Errorf("binds %v", root.Binds)
	}
	for _, b := range root.Binds {
		if b.Source == home || b.Source == home+"/.nvm" || strings.HasPrefix(b.Source, home+"/.local") {
			t.Errorf("%s is bound", b.Source)
		}
		if info, err := os.Lstat(filepath.Join(root.Lower[0], b.Target)); err != nil || !info.IsDir() {
			t.Errorf("there is nothing to mount %s on: %v", b.Target, err)
		}
	}
	want := []string{
		"PATH=/home/user/.local/bin:/usr/bin:" + node + "/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/sbin:/bin",
		"LANG=C.UTF-8", "SSL_CERT_FILE=/etc/ssl/tongs/1-elsewhere.pem",
	}
	if diff := cmp.Diff(want, root.Env); diff != "" {
		t.Errorf("environment: %s", diff)
	}
	seen := make(map[string]bool)
	for _, n := range notes {
		seen[n.Subject] = n.Visible
	}
	if !seen[node] || seen[home+"/.local/bin"] || len(notes) < 4 {
		t.Errorf("notes %+v", notes)
	}
}

func TestHostIsFoundAgain(t *testing.T) {
	t.Parallel()
	cfg, etc, _ := fakeHost(t)
	first, _, err := Host(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	again, _, err := Host(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, again); diff != "" {
		t.Error(diff)
	}
	if err := os.WriteFile(etc+"/ssl/certs/ca-certificates.crt", []byte("another PEM"), 0o644); err != nil {
		t.Fatal(err)
	}
	changed, _, err := Host(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if changed.ID == first.ID {
		t.Error("another certificate makes no other image")
	}
	if _, err := os.Stat(first.Lower[0]); err != nil {
		t.Errorf("the old image, which sandboxes use, is gone: %v", err)
	}
}

func TestHostAtOnce(t *testing.T) {
	t.Parallel()
	cfg, _, _ := fakeHost(t)
	var wg sync.WaitGroup
	ids := make([]string, 4)
	for i := range ids {
		wg.Go(func() {
			r, _, err := Host(t.Context(), cfg)
			if err != nil {
				t.Error(err)
			}
			ids[i] = r.ID
		})
	}
	wg.Wait()
	if ids = slices.Compact(ids); len(ids) != 1 {
		t.Errorf("ids %v", ids)
	}
	entries, err := os.ReadDir(cfg.Dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("entries %v, %v", entries, err)
	}
}

func TestRepository(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	cfg, _, _ := fakeHost(t)
	root, _, err := Host(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root.Lower[0], Project)
	cmd := exec.Command("git", "-c", "safe.directory=*", "-C", dir, "log", "--format=%an <%ae> %D %T")
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null")
	out, err := cmd.CombinedOutput()
	const empty = "4b825dc642cb6eb9a060e54bf8d69288fbee4904" // the tree without files
	if want := "OpenCode Agent <agent@opencode.ai> HEAD -> main " + empty + "\n"; err != nil || string(out) != want {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestWithoutGit(t *testing.T) {
	t.Parallel()
	cfg, _, _ := fakeHost(t)
	with, _, err := Host(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Git = "/nonexistent/git"
	root, notes, err := Host(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if root.ID == with.ID {
		t.Error("the image without a repository is the one with it")
	}
	if _, err := os.Stat(filepath.Join(root.Lower[0], Project, ".git")); err == nil {
		t.Error("there is a repository")
	}
	i := slices.IndexFunc(notes, func(n Note) bool { return n.Subject == "git" })
	if i < 0 || notes[i].Visible || !strings.Contains(notes[i].Detail, "install git") {
		t.Errorf("notes %+v", notes)
	}
}

func TestHostCancelled(t *testing.T) {
	t.Parallel()
	cfg, _, _ := fakeHost(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := Host(ctx, cfg); err == nil {
		t.Error("no error")
	}
	entries, err := os.ReadDir(cfg.Dir)
	if err != nil || len(entries) != 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

func TestTooMuch(t *testing.T) {
	t.Parallel()
	cfg, etc, _ := fakeHost(t)
	big := filepath.Join(etc, "ssl/certs/big")
	if err := os.WriteFile(big, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(big, maxFileBytes+1); err != nil {
		t.Fatal(err)
	}
	root, _, err := Host(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root.Lower[0], "etc/ssl/certs/big")); err == nil {
		t.Error("a file above the limit was taken over")
	}
}

func TestMatchPrefix(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, dir, want string
		ok                 bool
	}{
		{".nvm/versions/node/*", "/h/.nvm/versions/node/v1/bin", "/h/.nvm/versions/node/v1", true},
		{".nvm/versions/node/*", "/h/.nvm/versions/node", "", false},
		{".pyenv", "/h/.pyenv/shims", "/h/.pyenv", true},
		{".cargo/bin", "/h/.cargo", "", false},
		{"go/bin", "/h/go/bin", "/h/go/bin", true},
		{"go/bin", "/h/gone/bin", "", false},
	} {
		got, ok := matchPrefix("/h", c.pattern, c.dir)
		if ok != c.ok || ok && got != c.want {
			t.Errorf("%s in %s: %q, %t", c.dir, c.pattern, got, ok)
		}
	}
}
