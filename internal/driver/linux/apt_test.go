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

// TestPackages installs what the usual registries have in a sandbox of the host's image with the default policy: as root of the
// machine, as an ordinary user with ranges of ids, and as one with one id.
func TestPackages(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("TestPackages runs TestPackagesHere as ordinary users; it has to be root for that")
	}
	for _, host := range []string{"registry.npmjs.org", "proxy.golang.org"} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		_, err := net.DefaultResolver.LookupHost(ctx, host)
		cancel()
		if err != nil {
			t.Skipf("no way to %s from this machine: %v", host, err)
		}
	}
	t.Run("root", packages)
	t.Run("ranges", func(t *testing.T) { asUser(t, idmaptest.Alice, "^TestPackagesHere$", 1, packagesEnv+"=1") })
	t.Run("one id", func(t *testing.T) { asUser(t, bob, "^TestPackagesHere$", 1, packagesEnv+"=1") })
}

const packagesEnv = "TONGS_LINUX_TEST_PACKAGES"

// TestPackagesHere is what TestPackages runs as ordinary users.
func TestPackagesHere(t *testing.T) {
	if os.Getenv(packagesEnv) == "" {
		t.Skip("TestPackages runs it")
	}
	packages(t)
}

func packages(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	home := filepath.Join(t.TempDir(), "home")
	t.Cleanup(func() { must(t, idmap.Remove(context.WithoutCancel(t.Context()), home)) })
	root, _, err := image.Host(ctx, image.HostConfig{Dir: filepath.Join(home, "images")})
	must(t, err)
	policy, err := egress.ParsePolicy(egress.DefaultAllow(), nil)
	must(t, err)
	c := online(t, ctx, home, driver.Spec{ID: "host", Image: root}, policy)
	for name, test := range map[string]struct{ program, script, want string }{
		"npm": {"npm", "npm install --no-audit --no-fund is-number@7.0.0 2>&1 && node -p 'require(\"is-number\")(7)'", "\ntrue"},
		"go":  {"go", "mkdir m && cd m && go mod init example.org/x 2>&1 && go get github.com/google/uuid@v1.6.0 2>&1; go mod verify", "all modules verified"},
	} {
		t.Run(name, func(t *testing.T) {
			res, err := c.Exec(ctx, sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"sh", "-c", "command -v " + test.program + " >/dev/null || exit 99; " + test.script}}})
			must(t, err)
			if res.Exit.Code == 99 {
				t.Skipf("sandboxes see no %s of this machine", test.program)
			}
			if out := string(res.Stdout) + string(res.Stderr); !res.Exit.Success() || !strings.Contains(out, test.want) {
				t.Errorf("it ended with %+v: %s", res.Exit, out)
			}
		})
	}
	res, err := c.Exec(ctx, sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"curl", "-sS", "-m", "20", "http://forbidden.example/"}}})
	must(t, err)
	if !strings.Contains(string(res.Stdout), "EGRESS_DENIED") {
		t.Errorf("what is not allowed: %s%s", res.Stdout, res.Stderr)
	}
}

// online makes a sandbox with a way out and connects to it.
func online(t *testing.T, ctx context.Context, home string, spec driver.Spec, policy *egress.Policy) *sandbox.Client {
	t.Helper()
	guest := drivertest.GuestBinary(t)
	d, err := linux.New(linux.Config{Home: home, Guest: &guest})
	must(t, err)
	t.Cleanup(func() { must(t, d.Close()) })
	spec.Network = driver.NetworkEgress
	must(t, d.Create(ctx, spec))
	t.Cleanup(func() { must(t, d.Destroy(context.WithoutCancel(ctx), spec.ID)) })
	c, err := sandbox.Connect(ctx, func(ctx context.Context) (net.Conn, error) { return d.Dial(ctx, spec.ID) })
	must(t, err)
	t.Cleanup(func() { c.Close() })
	keeper := egress.NewKeeper(egress.KeeperConfig{Default: policy, Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)})
	t.Cleanup(keeper.Close)
	must(t, keeper.Serve(ctx, spec.ID, c))
	return c
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

	policy, err := egress.ParsePolicy([]string{"deb.debian.org", "security.debian.org"}, nil)
	must(t, err)
	c := online(t, ctx, home, driver.Spec{ID: "debian", Image: root, Root: true}, policy)

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
