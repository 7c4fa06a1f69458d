package tool_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tongs-dev/tongs/internal/tool"
	"github.com/tongs-dev/tongs/sandbox"
)

// The process that carries the tools out has descriptors of its own, and a root
// and working directory. No path may lead to them.
func TestNoToolGoesThroughAProcess(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("the secret\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	open := func(path string) uintptr {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f.Fd()
	}
	dir, file, up := open(outside), open(filepath.Join(outside, "secret")), filepath.Base(outside)
	for name, text := range map[string]string{
		"dirlink": fmt.Sprintf("/proc/self/fd/%d", dir), "uplink": fmt.Sprintf("/proc/%d/fd/%d/../%s", os.Getpid(), dir, up),
		"rootlink": "/proc/self/root" + outside, "filelink": fmt.Sprintf("/proc/thread-self/fd/%d", file),
	} {
		if err := os.Symlink(text, filepath.Join(b.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	dirs := []string{fmt.Sprintf("/proc/self/fd/%d", dir), fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), dir), "/proc/self/root" + outside,
		"/proc/self/cwd/../../../../../../../.." + outside, "dirlink", "uplink", "rootlink"}
	refused := func(name string, args m) {
		t.Helper()
		b.fails(sandbox.CodeSymlinkLoop, name, args, "a link into a process")
	}
	patch := func(lines ...string) m {
		return m{"patchText": "*** Begin Patch\n" + strings.Join(lines, "\n") + "\n*** End Patch"}
	}
	for _, d := range dirs {
		// "…/cwd/../.." is cleaned as text before it is used, and then names the sandbox's own.
		if strings.Contains(d, "cwd") {
			d = "cwdlink"
			if err := os.Symlink("/proc/self/cwd/../../../../../../../.."+outside, filepath.Join(b.dir, d)); err != nil {
				t.Fatal(err)
			}
		}
		if st, err := os.Stat(filepath.Join(b.dir, d)); !filepath.IsAbs(d) && (err != nil || !st.IsDir()) {
			t.Fatalf("%s leads nowhere, so nothing is tested: %v", d, err)
		}
		refused("list", m{"path": d})
		refused("read", m{"filePath": d})
		refused("read", m{"filePath": d + "/secret"})
		refused("glob", m{"path": d, "pattern": "*"})
		refused("grep", m{"path": d, "pattern": "secret"})
		refused("grep", m{"path": d + "/secret", "pattern": "secret"})
		refused("write", m{"filePath": d + "/new", "content": "x"})
		refused("write", m{"filePath": d + "/new/new", "content": "x"})
		refused("write", m{"filePath": d + "/secret", "content": "x"})
		refused("edit", m{"filePath": d + "/secret", "oldString": "the", "newString": "a"})
		refused("edit", m{"filePath": d + "/new", "oldString": "", "newString": "a"})
		refused("apply_patch", patch("*** Add File: "+d+"/new", "+x"))
		refused("apply_patch", patch("*** Delete File: "+d+"/secret"))
		refused("apply_patch", patch("*** Update File: "+d+"/secret", "@@", "-the secret", "+x"))
		refused("bash", m{"command": "pwd", "description": "a test", "workdir": d})
	}
	refused("read", m{"filePath": "filelink"})
	refused("read", m{"filePath": "/proc/self/exe"})
	refused("write", m{"filePath": "filelink", "content": "x"})

	rg, _ := exec.LookPath("rg") // "" is our own search
	// A search of the project passes by what only links to it.
	for _, ripgrep := range []string{"", rg} {
		b.env.Ripgrep = ripgrep
		if res := b.ok("grep", m{"pattern": "the secret"}); res.Metadata["matches"] != 0 {
			t.Errorf("rg %q: %s", ripgrep, res.Output)
		}
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
		t.Errorf("outside there is %v, %v", entries, err)
	}
	if data, err := os.ReadFile(filepath.Join(outside, "secret")); string(data) != "the secret\n" {
		t.Errorf("the secret is %q, %v", data, err)
	}
	// Plain files of the kernel's are read as ever.
	for _, path := range []string{"/proc/cpuinfo", "/proc/self/status", "/proc/thread-self/stat", "/proc/mounts"} {
		if res := b.ok("read", m{"filePath": path}); !strings.Contains(res.Output, "1: ") {
			t.Errorf("%s: %s", path, res.Output)
		}
	}
}

// Full outputs are not kept where a link into a process leads.
func TestOutputsAreNotKeptOutside(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	outside := t.TempDir()
	f, err := os.Open(outside)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b.env.OutputDir = filepath.Join(b.dir, "out")
	if err := os.Symlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), b.env.OutputDir); err != nil {
		t.Fatal(err)
	}
	res := b.ok("bash", m{"command": "seq 100000", "description": "a test"})
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("outside there is %v, %v", entries, err)
	}
	if len(res.Output) > tool.DefaultMaxBytes {
		t.Errorf("%d bytes", len(res.Output))
	}
}
