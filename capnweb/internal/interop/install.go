package interop

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

//go:embed js/*.mjs js/package.json js/package-lock.json
var scripts embed.FS

const (
	// installTime bounds the installation of the reference, downloads included.
	installTime = 3 * time.Minute
	// oldestNode is the first major version the scripts run on.
	oldestNode = 20
)

// Scripts returns a new directory, removed with the test, that holds the
// scripts of js/ and a node_modules with the reference in it. The test is
// skipped where node, npm or the registry are missing, unless it runs in CI
// (the environment variable CI is set): there it fails.
func Scripts(t testing.TB) string {
	t.Helper()
	modules, err := install(t.Context())
	var missing *missingError
	if errors.As(err, &missing) && os.Getenv("CI") == "" {
		t.Skipf("interop: %v", err)
	}
	if err != nil {
		t.Fatalf("interop: installing the reference: %v", err)
	}
	dir := t.TempDir()
	if err := writeScripts(dir, func(string) bool { return true }); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// missingError says that this machine lacks what the tests need.
type missingError struct{ what string }

func (e *missingError) Error() string { return e.what }

func missingf(format string, args ...any) error {
	return &missingError{fmt.Sprintf(format, args...)}
}

// install returns the node_modules directory that belongs to the lock file. It
// is made on first use and shared by all later runs.
func install(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, installTime)
	defer cancel()
	if err := checkNode(ctx); err != nil {
		return "", err
	}
	if _, err := exec.LookPath("npm"); err != nil {
		return "", missingf("npm is not installed")
	}

	cache, err := os.UserCacheDir()
	if err != nil {
		cache = filepath.Join(os.TempDir(), "cache-"+strconv.Itoa(os.Getuid()))
	}
	root := filepath.Join(cache, "tongs-test")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", err
	}
	lockfile, err := scripts.ReadFile("js/package-lock.json")
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(lockfile)
	dir := filepath.Join(root, "interop-"+hex.EncodeToString(sum[:8]))

	unlock, err := lock(ctx, dir+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()

	modules := filepath.Join(dir, "node_modules")
	if _, err := os.Stat(modules); err == nil {
		return modules, nil
	}
	fresh, err := os.MkdirTemp(root, "install-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(fresh)
	isPackage := func(name string) bool { return strings.HasSuffix(name, ".json") }
	if err := writeScripts(fresh, isPackage); err != nil {
		return "", err
	}
	if err := npmInstall(ctx, fresh); err != nil {
		return "", err
	}
	return modules, os.Rename(fresh, dir)
}

func npmInstall(ctx context.Context, dir string) error {
	cmd := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--no-audit", "--no-fund", "--no-update-notifier")
	cmd.Dir = dir
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return missingf("npm ci did not end within %v: is the package registry reachable?", installTime)
	}
	if network.Match(out) {
		return missingf("the package registry is not reachable: %s", firstLine(network, out))
	}
	return fmt.Errorf("npm ci: %w\n%s", err, out)
}

// network matches what npm prints when it cannot reach its registry.
var network = regexp.MustCompile(`.*\b(ENOTFOUND|ECONNREFUSED|ECONNRESET|ETIMEDOUT|EAI_AGAIN|ENETUNREACH|ENOTCACHED|ERR_SOCKET_TIMEOUT)\b.*`)

func firstLine(re *regexp.Regexp, out []byte) []byte { return bytes.TrimSpace(re.Find(out)) }

func checkNode(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "node", "--version").Output()
	if err != nil {
		return missingf("node is not installed")
	}
	major, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(string(out)), "v"), ".")
	if n, err := strconv.Atoi(major); err != nil || n < oldestNode {
		return missingf("node is too old: %s, need %d", bytes.TrimSpace(out), oldestNode)
	}
	return nil
}

func writeScripts(dir string, want func(name string) bool) error {
	entries, err := fs.ReadDir(scripts, "js")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !want(e.Name()) {
			continue
		}
		body, err := scripts.ReadFile("js/" + e.Name())
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, e.Name()), body, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// lock takes an exclusive lock on a file, for packages tested at the same time.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			_ = f.Close()
			return nil, fmt.Errorf("locking %s: %w", path, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			_ = f.Close()
			return nil, fmt.Errorf("locking %s: %w", path, ctx.Err())
		}
	}
}
