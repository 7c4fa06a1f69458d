//go:build linux

package linux

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/tongs-dev/tongs/internal/driver"
)

// TestCgroup2Controllers looks at hierarchies as they are on other machines: files in a directory.
func TestCgroup2Controllers(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  []string
	}{
		"the whole hierarchy":     {map[string]string{"cgroup.procs": "1\n2\n", "cgroup.subtree_control": ""}, wanted},
		"an empty delegated one":  {map[string]string{"cgroup.type": "domain\n", "cgroup.procs": "", "cgroup.subtree_control": ""}, wanted},
		"a container's":           {map[string]string{"cgroup.type": "domain\n", "cgroup.procs": "1\n", "cgroup.subtree_control": ""}, nil},
		"a container's, prepared": {map[string]string{"cgroup.type": "domain\n", "cgroup.procs": "", "cgroup.subtree_control": "memory pids\n"}, wanted},
		"with what others enabled": {map[string]string{"cgroup.type": "domain\n", "cgroup.procs": "1\n", "cgroup.subtree_control": "memory pids\n"},
			[]string{"memory", "pids"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c.files["cgroup.controllers"] = "cpuset cpu io memory hugetlb pids\n"
			for file, text := range c.files {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			g, err := newCgroup2(dir)
			if err != nil || !slices.Equal(g.controllers(), c.want) {
				t.Errorf("%q, %v; want %q", g.controllers(), err, c.want)
			}
		})
	}
}

// TestWeight gives groups another weight than the usual.
func TestWeight(t *testing.T) {
	groups, err := findCgroups("")
	if err != nil || !slices.Contains(groups.controllers(), "cpu") {
		t.Skipf("no controller of processors: %v", err)
	}
	for name, c := range map[string]struct {
		weight int64
		v1, v2 string
	}{"heavy": {1000, "10240\n", "1000\n"}, "light": {10, "102\n", "10\n"}, "usual": {0, "1024\n", "100\n"}} {
		id := "test-weight-" + name
		g, err := groups.create(id, driver.Limits{MemoryBytes: -1, Pids: -1, CPUWeight: c.weight}, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		g.close()
		file, want := "", c.v2
		switch groups := groups.(type) {
		case *cgroup1:
			file, want = filepath.Join(groups.dirs["cpu"], cgroupParent, id, "cpu.shares"), c.v1
		case *cgroup2:
			file = filepath.Join(groups.root, cgroupParent, id, "cpu.weight")
		}
		if text, err := os.ReadFile(file); err != nil || string(text) != want {
			t.Errorf("%s: %q, %v; want %q", name, text, err, want)
		}
		if err := groups.remove(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
}
