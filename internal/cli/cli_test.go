package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// runMain runs one command line in this process, with a deadline.
func runMain(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out, errs bytes.Buffer
	code = Main(ctx, args, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

// write makes a file in a new directory and returns its path.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// entries lists what a directory holds.
func entries(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	names := []string{}
	for _, entry := range list {
		names = append(names, entry.Name())
	}
	return names
}

// TestMistakes makes the mistakes that people make. Each ends at once, with the stated status, with
// one message that says what to do.
func TestMistakes(t *testing.T) {
	t.Setenv("TONGS_HOME", "")
	t.Setenv("TONGS_PASSWORD", "")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()

	for _, test := range []struct {
		name string
		args []string
		code int
		want string // in what is printed on standard error
	}{
		{"unknown command", []string{"upp"}, 2, `unexpected argument upp, did you mean "up"`},
		{"unknown flag", []string{"up", "--lissten", "x"}, 2, `unknown flag --lissten`},
		{"unknown driver", []string{"up", "--driver", "kvm"}, 2, `driver "kvm": use one of linux, gvisor, runc, crun`},
		{"unknown platform", []string{"driver", "list", "--config", write(t, "p.toml", "gvisor_platform = \"kvm\"\n")}, 2, `gvisor_platform "kvm": use systrap or ptrace`},
		{"unknown key", []string{"up", "--config", write(t, "c.toml", "listen = \"127.0.0.1:0\"\nlisten_on = 1\n")}, 2, `unknown configuration key listen_on \(line 2\)`},
		{"wrong type", []string{"up", "--config", write(t, "c.toml", "[sandbox]\npids = \"many\"\n")}, 2, `c.toml:2:`},
		{"wrong size", []string{"up", "--config", write(t, "c.toml", "[sandbox]\nmemory = \"lots\"\n")}, 2, `"lots" is not a size: write 512MiB`},
		{"a limit that no shell fits in", []string{"up", "--config", write(t, "c.toml", "[sandbox]\npids = 1\n")}, 2, `sandbox.pids = 1: no tool can run with fewer than 16`},
		{"a disk that nothing fits on", []string{"up", "--config", write(t, "c.toml", "[sandbox]\ndisk = \"1MiB\"\n")}, 2, `sandbox.disk: no project fits into less than 16MiB`},
		{"few files", []string{"up", "--config", write(t, "c.toml", "[sandbox]\ndisk_files = 5\n")}, 2, `sandbox.disk_files = 5: no project fits into fewer than 1000`},
		{"no size of a storage", []string{"up", "--storage", "much"}, 2, `--storage: "much" is not a size`},
		{"a storage that is too small", []string{"up", "--storage", "1MiB"}, 2, `storage.size: a file system for sandboxes has at least 64MiB`},
		{"a fix of nothing", []string{"doctor", "--fix"}, 2, `tongs doctor --leaks --fix`},
		{"opencode.json that is not there", []string{"up", "--opencode-config", "/nowhere/opencode.json"}, 2, `check the path given with --opencode-config`},
		{"broken TOML", []string{"up", "--config", write(t, "c.toml", "listen = \n")}, 2, `c.toml:1:`},
		{"no such configuration", []string{"up", "--config", "/nowhere/c.toml"}, 2, `cannot be read`},
		{"open address without password", []string{"up", "--listen", "0.0.0.0:8787"}, 2, `no password is set: set TONGS_PASSWORD`},
		{"not an address", []string{"up", "--listen", "8787"}, 2, `is not host:port, such as 127.0.0.1:8787`},
		{"port in use", []string{"up", "--listen", taken.Addr().String()}, 1, `choose another address with --listen`},
		{"unwritable home", []string{"up", "--home", "/proc/tongs"}, 1, `name another one with --home or TONGS_HOME`},
		{"home is a file", []string{"up", "--home", write(t, "file", "")}, 1, `name another one with --home or TONGS_HOME`},
		{"log level", []string{"--log-level", "loud", "version"}, 0, ``}, // version reads no configuration
		{"log level where it matters", []string{"--log-level", "loud", "up"}, 2, `use debug, info, warn or error`},
		{"no image", []string{"up", "--image", "Bad Name"}, 2, `"Bad Name" is no reference to an image`},
		{"own OpenCode that is none", []string{"up", "--opencode-binary", "/nowhere/opencode"}, 1, `/nowhere/opencode`},
	} {
		t.Run(test.name, func(t *testing.T) {
			home := filepath.Join(t.TempDir(), "home")
			args := test.args
			if !strings.Contains(strings.Join(args, " "), "--home") {
				args = append([]string{"--home", home}, args...)
			}
			if args[2] == "up" && !strings.Contains(strings.Join(args, " "), "--listen") {
				args = append(args, "--listen", "127.0.0.1:0")
			}
			code, stdout, stderr := runMain(t, args...)
			if code != test.code {
				t.Errorf("status %d, want %d\n%s%s", code, test.code, stdout, stderr)
			}
			if !regexp.MustCompile(test.want).MatchString(stderr) {
				t.Errorf("stderr lacks %q:\n%s", test.want, stderr)
			}
			if strings.Count("\n"+stderr, "\ntongs: ") > 1 {
				t.Errorf("more than one message:\n%s", stderr)
			}
		})
	}
}

func TestNoNetworkLeavesNothing(t *testing.T) {
	t.Setenv("npm_config_registry", "http://127.0.0.1:1/") // nothing listens there
	home := filepath.Join(t.TempDir(), "home")
	code, stdout, stderr := runMain(t, "--home", home, "up", "--listen", "127.0.0.1:0")
	if code != 1 || !strings.Contains(stderr, "127.0.0.1:1") {
		t.Errorf("status %d\n%s%s", code, stdout, stderr)
	}
	for _, dir := range []string{"sandboxes", "run"} {
		if left := entries(t, filepath.Join(home, dir)); len(left) > 0 {
			t.Errorf("%s holds %v", dir, left)
		}
	}
	found, err := filepath.Glob(filepath.Join(home, "opencode", "*", "opencode"))
	if err != nil || len(found) > 0 {
		t.Errorf("half an OpenCode is there: %v %v", found, err)
	}
}

func TestDownWithNothing(t *testing.T) {
	t.Parallel()
	code, stdout, _ := runMain(t, "--home", filepath.Join(t.TempDir(), "never"), "down", "--json")
	var answer struct {
		Service   bool
		Sandboxes []string
	}
	if err := json.Unmarshal([]byte(stdout), &answer); err != nil || code != 0 || answer.Service || len(answer.Sandboxes) > 0 {
		t.Errorf("status %d, %q", code, stdout)
	}
}

func TestOneServiceForEachHome(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := openHome(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.acquire(); err != nil {
		t.Fatal(err)
	}
	defer first.release()
	code, _, stderr := runMain(t, "--home", dir, "up", "--listen", "127.0.0.1:0")
	if code != 1 || !strings.Contains(stderr, "is serving this home") || !strings.Contains(stderr, "tongs down") {
		t.Errorf("status %d\n%s", code, stderr)
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	code, stdout, _ := runMain(t, "version", "--json")
	var answer map[string]string
	if err := json.Unmarshal([]byte(stdout), &answer); err != nil || code != 0 || answer["opencode"] == "" || answer["tongs"] == "" {
		t.Errorf("status %d, %q", code, stdout)
	}
}

// TestHelp holds that each command's help says with which statuses it ends.
func TestHelp(t *testing.T) {
	t.Parallel()
	for _, command := range []string{
		"up", "down", "demo", "verify", "doctor", "version", "completion", "sandbox", "sandbox create", "sandbox list", "sandbox inspect", "sandbox exec",
		"sandbox shell", "sandbox ps", "sandbox kill", "sandbox logs", "sandbox cp", "sandbox ls", "sandbox cat", "sandbox watch",
		"sandbox ports", "sandbox forward", "sandbox token", "sandbox rm", "sandbox checkpoint", "sandbox restore",
	} {
		code, stdout, _ := runMain(t, append(strings.Fields(command), "--help")...)
		if code != 0 || !strings.Contains(stdout, "EXIT STATUS") {
			t.Errorf("%s --help: status %d\n%s", command, code, stdout)
		}
	}
}

func TestConfigOrder(t *testing.T) {
	t.Setenv("TONGS_PASSWORD", "")
	file := write(t, "c.toml", "listen = \"127.0.0.1:1111\"\nscripted = true\nlease = \"90m\"\n\n[sandbox]\nmemory = \"1GiB\"\npids = 100\nroot = true\n")
	cfg, err := (&Globals{Config: file, Home: "/tmp/elsewhere"}).load()
	if err != nil {
		t.Fatal(err)
	}
	if err := (&ServiceFlags{Listen: "127.0.0.1:2222"}).apply(cfg); err != nil {
		t.Fatal(err)
	}
	want := &Config{Home: "/tmp/elsewhere", Listen: "127.0.0.1:2222", Scripted: true, Lease: Duration(90 * time.Minute), Sandbox: Sandbox{Limits: Limits{Memory: 1 << 30, Pids: 100}, Root: true}}
	if diff := cmp.Diff(want, cfg); diff != "" {
		t.Error(diff)
	}
}

func TestKeysInAnOpenFileAreRefused(t *testing.T) {
	t.Parallel()
	file := write(t, "c.toml", "[keys]\nopenai = \"sk-1\"\n")
	if _, err := (&Globals{Config: file}).load(); err != nil {
		t.Errorf("mode 0600: %v", err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := (&Globals{Config: file}).load(); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("mode 0644: %v", err)
	}
}

func FuzzSizes(f *testing.F) {
	for _, seed := range []string{"0", "512MiB", "2GiB", "-1", "9223372036854775807TiB", "1 KiB", "KiB"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var b Bytes
		if err := b.UnmarshalText([]byte(text)); err == nil && b < 0 {
			t.Errorf("%q became %d", text, b)
		}
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err == nil && d < 0 {
			t.Errorf("%q became %d", text, d)
		}
	})
}

// TestLeaks finds and removes what is left of a sandbox, and finds nothing where there is nothing.
func TestLeaks(t *testing.T) {
	home := filepath.Join(t.TempDir(), "home")
	code, out, errs := runMain(t, "doctor", "--leaks", "--home", home)
	if code != 0 || !strings.Contains(out, "nothing is left") || len(entries(t, home)) > 0 {
		t.Errorf("no home: %d\n%s%s%v", code, out, errs, entries(t, home))
	}
	dir := filepath.Join(home, "sandboxes", ".new-cut-short")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	code, out, errs = runMain(t, "doctor", "--leaks", "--home", home)
	if code != 1 || out != "left: directory "+dir+"\n→ tongs doctor --leaks --fix\n" {
		t.Errorf("a leak: %d\n%s%s", code, out, errs)
	}
	code, out, errs = runMain(t, "doctor", "--leaks", "--fix", "--json", "--home", home)
	var answer struct{ Left, Removed []string }
	if err := json.Unmarshal([]byte(out), &answer); err != nil || code != 0 || len(answer.Left) != 0 || len(answer.Removed) != 1 {
		t.Errorf("the fix: %d, %v\n%s%s", code, err, out, errs)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("it is still there")
	}
}
