package tongs_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/tongs-dev/tongs"

// layers says, for each package, which packages of this module it may import besides those below
// itself ("x/..." stands for x and what is under it). A package that has no row fails the test, so
// that somebody decides where it belongs.
var layers = map[string][]string{
	"":                 {},
	"capnweb":          {"capnweb/internal/..."},
	"capnweb/httprpc":  {"capnweb", "capnweb/internal/..."},
	"capnweb/internal": {"capnweb/..."},

	"sandbox":            {"capnweb"},
	"sandbox/shell":      {"sandbox"},
	"sandbox/git":        {"sandbox"},
	"sandbox/code":       {"sandbox"},
	"sandbox/remote":     {"sandbox", "capnweb", "capnweb/httprpc"},
	"internal/files":     {},
	"internal/plainjson": {},
	"internal/tool":      {"internal/files", "sandbox"},
	"internal/guest":     {"internal/tool", "internal/files", "internal/plainjson/...", "sandbox", "capnweb"},

	"internal/idmap":             {"sandbox"},
	"internal/image":             {"internal/idmap/...", "sandbox"},
	"internal/driver":            {"internal/image/...", "internal/idmap/...", "internal/guest", "internal/plainjson/...", "sandbox", "sandbox/sandboxtest"},
	"internal/driver/drivertest": {"internal/driver", "internal/idmap/...", "internal/egress", "internal/image", "internal/guest", "sandbox", "sandbox/sandboxtest"},
	"internal/driver/oci":        {"internal/driver", "internal/driver/linux", "sandbox"},
	"internal/fleet":             {"internal/driver", "internal/image", "sandbox", "capnweb"},

	"internal/egress":   {"sandbox"},
	"internal/webfetch": {"sandbox"},
	"internal/api":      {"internal/fleet", "internal/driver", "internal/image", "sandbox", "sandbox/remote", "capnweb", "capnweb/httprpc"},
	"internal/preview":  {"sandbox"},
	"internal/surface":  {"sandbox/...", "capnweb", "capnweb/httprpc"},

	"plugin":               {},
	"internal/scriptmodel": {},
	"internal/modelproxy":  {},
	"internal/opencode":    {"plugin", "internal/modelproxy", "sandbox", "capnweb", "capnweb/httprpc"},
	"internal/gateway":     {"internal/opencode", "internal/fleet", "sandbox", "capnweb"},

	"internal/project":  {"internal/idmap", "sandbox"},
	"internal/snapshot": {"sandbox"},
	"internal/undo":     {"internal/gateway", "internal/snapshot", "sandbox"},

	"internal/shell": {"sandbox"},
	"internal/doors": {"internal/gateway", "internal/shell", "sandbox"},

	"internal/verify": {"sandbox"},

	"internal/e2e": {}, // tests only, through the public faces
	"internal/cli": {"", "internal/...", "plugin", "sandbox/...", "capnweb"},
	"cmd":          {"", "internal/cli", "internal/guest", "internal/shell", "internal/driver/...", "sandbox"},
}

// guestMayNotLink lists what would make the guest, the first process of every sandbox, large.
var guestMayNotLink = []string{"net/http", "crypto/tls", "text/template"}

type pkg struct {
	ImportPath, Doc string
	Imports, Deps   []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Doc,Imports,Deps", "./...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// row finds the closest layer that holds the package: itself or the nearest folder above it.
func row(rel string) (string, bool) {
	for dir := rel; ; dir = path.Dir(dir) {
		if dir == "." {
			dir = ""
		}
		if _, ok := layers[dir]; ok && (dir != "" || rel == "") {
			return dir, true
		}
		if dir == "" {
			return "", false
		}
	}
}

func TestImportsGoDownward(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		rel := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		layer, ok := row(rel)
		if !ok {
			t.Errorf("%s has no row in layers: decide what it may import", p.ImportPath)
			continue
		}
		for _, imported := range p.Imports {
			if imported != module && !strings.HasPrefix(imported, module+"/") {
				continue
			}
			dep := strings.TrimPrefix(strings.TrimPrefix(imported, module), "/")
			within := layer != "" && (dep == layer || strings.HasPrefix(dep, layer+"/"))
			if within || slices.ContainsFunc(layers[layer], func(allowed string) bool {
				base, tree := strings.CutSuffix(allowed, "/...")
				return dep == allowed || tree && (dep == base || strings.HasPrefix(dep, base+"/"))
			}) {
				continue
			}
			t.Errorf("%s imports %s, which its layer %q does not allow", p.ImportPath, imported, layer)
		}
	}
}

func TestEachPackageSaysWhatItIsFor(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if p.Doc == "" {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

func TestGuestStaysSmall(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if p.ImportPath != module+"/cmd/tongs-guest" {
			continue
		}
		for _, banned := range guestMayNotLink {
			if slices.Contains(p.Deps, banned) {
				t.Errorf("the guest links %s", banned)
			}
		}
		return
	}
	t.Error("cmd/tongs-guest is not there")
}
