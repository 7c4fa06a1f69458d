package surface_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/capnweb/httprpc"
	"github.com/tongs-dev/tongs/internal/surface"
	"github.com/tongs-dev/tongs/sandbox/remote"
)

//go:embed js/*.mjs js/package.json js/package-lock.json
var scripts embed.FS

// installTime bounds the installation of what the scripts need, downloads included.
const installTime = 4 * time.Minute

// scriptDir is a new directory with the scripts and a node_modules. The test is skipped where
// node, npm or the registry are missing, unless CI is set.
func scriptDir(t *testing.T) string {
	t.Helper()
	modules, err := install(t.Context())
	if err != nil && os.Getenv("CI") == "" && errors.Is(err, errMissing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := writeScripts(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func writeScripts(dir string) error {
	entries, err := scripts.ReadDir("js")
	if err != nil {
		return err
	}
	for _, e := range entries {
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

var errMissing = errors.New("this machine lacks what the JavaScript tests need")

// noNetwork matches what npm prints when it cannot reach its registry.
var noNetwork = regexp.MustCompile(`\b(ENOTFOUND|ECONNREFUSED|ECONNRESET|ETIMEDOUT|EAI_AGAIN|ENETUNREACH|ENOTCACHED|ERR_SOCKET_TIMEOUT)\b`)

// install returns the node_modules that belong to the lock file, made on first use and
// shared by later runs.
func install(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, installTime)
	defer cancel()
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			return "", fmt.Errorf("%w: no %s", errMissing, program)
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
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
	dir := filepath.Join(root, "surface-"+hex.EncodeToString(sum[:8]))
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	for unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	modules := filepath.Join(dir, "node_modules")
	if _, err := os.Stat(modules); err == nil {
		return modules, nil
	}
	fresh, err := os.MkdirTemp(root, "install-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(fresh)
	if err := writeScripts(fresh); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier")
	cmd.Dir = fresh
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil:
	case ctx.Err() != nil, noNetwork.Match(out):
		return "", fmt.Errorf("%w: npm ci: %s", errMissing, bytes.TrimSpace(out))
	default:
		return "", fmt.Errorf("npm ci: %w\n%s", err, out)
	}
	return modules, os.Rename(fresh, dir)
}

// endpoint serves what stands in for the public endpoint: create() makes a sandbox of its own for the
// caller and gives its surface.
type endpoint struct {
	*httptest.Server
	mu       sync.Mutex
	boxes    []*box
	sessions []*capnweb.Session
}

func serve(t *testing.T) *endpoint {
	e := &endpoint{}
	e.Server = httptest.NewServer(&httprpc.Handler{
		Main: func(*http.Request) (any, error) {
			return capnweb.NewTarget(capnweb.Methods{"create": e.create}, capnweb.Concurrent()), nil
		},
		OnSession: func(_ *http.Request, s *capnweb.Session) {
			e.mu.Lock()
			e.sessions = append(e.sessions, s)
			e.mu.Unlock()
		},
	})
	t.Cleanup(func() {
		e.CloseClientConnections()
		e.Close()
		e.mu.Lock()
		defer e.mu.Unlock()
		for _, s := range e.sessions {
			<-s.Done()
		}
		for _, b := range e.boxes {
			if err := b.end(); err != nil {
				t.Errorf("ending a sandbox: %v\n%s", err, b.stderr.String())
			}
		}
	})
	return e
}

func (e *endpoint) create(ctx context.Context) (*capnweb.Target, error) {
	b, err := newBox(ctx)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	e.boxes = append(e.boxes, b)
	e.mu.Unlock()
	return surface.New(b.Client, surface.Options{
		Name: filepath.Base(b.dir), Previews: &previews{ports: map[int]preview{}},
		Destroy: func(context.Context) error { return nil },
	}), nil
}

// verdict is one line of suite.mjs.
type verdict struct {
	Name    string  `json:"name"`
	Error   string  `json:"error"`
	Skipped string  `json:"skipped"`
	Ms      float64 `json:"ms"`
}

// TestJavaScript has the plain npm client do everything to surfaces, and again through the public endpoint
// and the fleet. Each case ends with everything disposed, and with nothing but the main objects in the session's
// tables. Plain guests share /tmp, so the two go one after the other.
func TestJavaScript(t *testing.T) {
	t.Parallel()
	t.Run("surface", func(t *testing.T) { runSuite(t, "ws"+strings.TrimPrefix(serve(t).URL, "http"), "") })
	t.Run("endpoint", func(t *testing.T) {
		url, token := servePublic(t)
		runSuite(t, "ws"+strings.TrimPrefix(url, "http")+remote.Path, token)
	})
}

func runSuite(t *testing.T, url, token string) {
	t.Helper()
	dir := scriptDir(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	args := append([]string{"suite.mjs", url}, strings.Fields(os.Getenv("TONGS_TEST_CASES"))...)
	cmd := exec.CommandContext(ctx, "node", args...)
	cmd.Env = append(os.Environ(), "TONGS_TOKEN="+token)
	cmd.Dir = dir
	cmd.WaitDelay = 10 * time.Second
	var stderr syncBuffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	count := 0
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var v verdict
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			t.Errorf("node: %s", lines.Text())
			continue
		}
		count++
		t.Run(v.Name, func(t *testing.T) {
			switch {
			case v.Skipped != "":
				t.Skip(v.Skipped)
			case v.Error != "":
				t.Errorf("after %.0f ms: %s", v.Ms, v.Error)
			}
		})
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("node: %v\n%s", err, stderr.String())
	}
	if len(args) == 2 && count < 40 {
		t.Errorf("only %d cases were run\n%s", count, stderr.String())
	}
}
