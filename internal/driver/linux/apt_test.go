//go:build linux

package linux_test

import (
	"context"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/driver/drivertest"
	"github.com/tongs-dev/tongs/internal/driver/linux"
	"github.com/tongs-dev/tongs/internal/egress"
	"github.com/tongs-dev/tongs/internal/idmap"
	"github.com/tongs-dev/tongs/internal/idmap/idmaptest"
	"github.com/tongs-dev/tongs/internal/image"
	"github.com/tongs-dev/tongs/sandbox"
)

// debianEnv names an archive of Debian's root file system.
const debianEnv = "TONGS_TEST_DEBIAN"

// TestApt installs a package in a sandbox of Debian, as its root, through the way out; once as root of the
// machine and once as an ordinary user with a range of ids. It takes minutes and Debian's servers.
func TestApt(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("TestApt runs TestInstall as an ordinary user; it has to be root for that")
	}
	if os.Getenv("TONGS_TEST_LONG") == "" {
		t.Skip("it takes minutes: set TONGS_TEST_LONG=1")
	}
	archive := os.Getenv(debianEnv)
	if archive == "" {
		if _, err := exec.LookPath("mmdebstrap"); err != nil {
			t.Skip("there is no mmdebstrap to make a root file system with; or name one: " + debianEnv)
		}
		dir, err := os.MkdirTemp("", "tongs-debian-")
		must(t, err)
		t.Cleanup(func() { os.RemoveAll(dir) })
		must(t, os.Chmod(dir, 0o755)) // the ordinary user reads it too
		archive = filepath.Join(dir, "debian.tar")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		if out, err := exec.CommandContext(ctx, "mmdebstrap", "--quiet", "--variant=minbase", "bookworm", archive).CombinedOutput(); err != nil {
			t.Skipf("mmdebstrap: %v: %s", err, out)
		}
	}
	t.Run("root", func(t *testing.T) { install(t, archive) })
	t.Run("ranges", func(t *testing.T) { asUser(t, idmaptest.Alice, "^TestInstall$", 1, debianEnv+"="+archive) })
}

// TestInstall is what TestApt runs as an ordinary user.
func TestInstall(t *testing.T) {
	archive := os.Getenv(debianEnv)
	if archive == "" || os.Geteuid() == 0 {
		t.Skip("TestApt runs it")
	}
	install(t, archive)
}

func install(t *testing.T, archive string) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	home := filepath.Join(t.TempDir(), "home")
	store, err := image.OpenStore(image.StoreConfig{Dir: filepath.Join(home, "images")})
	must(t, err)
	defer store.Close()
	t.Cleanup(func() { must(t, idmap.Remove(context.WithoutCancel(t.Context()), home)) })
	_, err = store.Import(ctx, archive, image.ImportOptions{Name: "debian:test"})
	must(t, err)
	root, _, release, err := store.Use(ctx, "debian:test", image.PullOptions{})
	must(t, err)
	defer release()

	guest := drivertest.GuestBinary(t)
	d, err := linux.New(linux.Config{Home: home, Guest: &guest})
	must(t, err)
	defer d.Close()
	must(t, d.Create(ctx, driver.Spec{ID: "debian", Image: root, Root: true, Network: driver.NetworkEgress}))
	defer d.Destroy(context.WithoutCancel(ctx), "debian")
	c, err := sandbox.Connect(ctx, func(ctx context.Context) (net.Conn, error) { return d.Dial(ctx, "debian") })
	must(t, err)
	defer c.Close()
	policy, err := egress.ParsePolicy([]string{"deb.debian.org", "security.debian.org"}, nil)
	must(t, err)
	keeper := egress.NewKeeper(egress.KeeperConfig{Default: policy, Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)})
	defer keeper.Close()
	must(t, keeper.Serve(ctx, "debian", c))

	run := func(user, script string) (string, bool) {
		t.Helper()
		res, err := c.Exec(ctx, sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"sh", "-c", script}, User: user, Env: map[string]string{"DEBIAN_FRONTEND": "noninteractive"}}})
		must(t, err)
		return strings.TrimSpace(string(res.Stdout) + string(res.Stderr)), res.Exit.Success()
	}
	if out, ok := run("root", "apt-get update -q && apt-get install -qy hello"); !ok {
		t.Fatal(out)
	}
	for _, test := range []struct{ user, script, want string }{
		{"", "hello; id -u", "Hello, world!\n1000"},
		{"root", "useradd -m bob && stat -c %U /home/bob && touch /srv/x && chown bob:games /srv/x && stat -c %U:%G /srv/x", "bob\nbob:games"},
		{"root", "stat -c %U:%G:%a /etc/shadow /var/lib/apt/lists/partial", "root:shadow:640\n_apt:root:700"}, // of the image, and made by apt
		{"", "cat /etc/shadow >/dev/null 2>&1 || echo refused", "refused"},
	} {
		if out, ok := run(test.user, test.script); !ok || out != test.want {
			t.Errorf("%q: %s\ngot  %q\nwant %q", test.user, test.script, out, test.want)
		}
	}
	if out, ok := run("", "apt-get install -qy cowsay"); ok {
		t.Errorf("the sandbox's user installs software: %s", out)
	}
}
