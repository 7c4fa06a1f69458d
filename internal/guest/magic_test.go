package guest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tongs-dev/tongs/sandbox"
)

// The guest's root, working directory and descriptors are not the sandbox's to
// use: no file operation, and no command's directory, goes through them.
func TestNoPathGoesThroughTheGuest(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	outside := filepath.Join(b.dir, "home")
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	guest := fmt.Sprintf("/proc/%d", b.cmd.Process.Pid)
	for name, text := range map[string]string{"link": "/proc/self/root" + outside, "link2": guest + "/cwd/../../../../../../../.." + outside} {
		if err := os.Symlink(text, b.path(name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"/proc/self/root" + outside, guest + "/root" + outside, "/proc/thread-self/cwd/../../../../../../.." + outside,
		"link", "link2", b.project + "/link/../home"} {
		secret, made := dir+"/secret", dir+"/made"
		for what, f := range map[string]func() error{
			"read":           func() error { _, _, err := b.ReadFile(ctx, secret, sandbox.ReadOptions{}); return err },
			"open":           func() error { _, err := b.OpenFile(ctx, secret, sandbox.ReadOptions{}); return err },
			"write":          func() error { _, err := b.WriteFile(ctx, secret, nil, sandbox.WriteOptions{}); return err },
			"write in place": func() error { _, err := b.WriteFile(ctx, secret, nil, sandbox.WriteOptions{InPlace: true}); return err },
			"make":           func() error { _, err := b.WriteFile(ctx, made, nil, sandbox.WriteOptions{}); return err },
			"make with parents": func() error {
				_, err := b.WriteFile(ctx, made+"/x", nil, sandbox.WriteOptions{Parents: true})
				return err
			},
			"append":     func() error { _, err := b.WriteFile(ctx, made, nil, sandbox.WriteOptions{Append: true}); return err },
			"stat":       func() error { _, err := b.Stat(ctx, secret); return err },
			"lstat":      func() error { _, err := b.Lstat(ctx, secret); return err },
			"list":       func() error { _, err := b.ListFiles(ctx, dir, sandbox.ListOptions{}); return err },
			"mkdir":      func() error { return b.Mkdir(ctx, made, false) },
			"mkdir -p":   func() error { return b.Mkdir(ctx, made+"/x", true) },
			"remove":     func() error { return b.RemoveFile(ctx, secret, false) },
			"remove all": func() error { return b.RemoveFile(ctx, secret, true) },
			"rename":     func() error { return b.Rename(ctx, secret, "x") },
			"chmod":      func() error { return b.Chmod(ctx, secret, 0o600) },
			"symlink":    func() error { return b.Symlink(ctx, "x", made) },
			"start": func() error {
				spec := bash("pwd")
				spec.Dir = dir
				_, err := b.Exec(ctx, spec)
				return err
			},
		} {
			err := f()
			if sandbox.CodeOf(err) != sandbox.CodeSymlinkLoop || !strings.Contains(err.Error(), "a link into a process") {
				t.Errorf("%s in %s: %v", what, dir, err)
			}
		}
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
		t.Errorf("outside there is %v, %v", entries, err)
	}
	if st, err := os.Stat(filepath.Join(outside, "secret")); err != nil || st.Size() != 6 || st.Mode() != 0o644 {
		t.Errorf("the secret: %v, %v", st, err)
	}
	for _, path := range []string{"/proc/cpuinfo", "/proc/self/status"} {
		if data, _, err := b.ReadFile(ctx, path, sandbox.ReadOptions{}); err != nil || len(data) == 0 {
			t.Errorf("%s: %d bytes, %v", path, len(data), err)
		}
	}
	// A command's directory is the one that is named, by links that are text too.
	if err := b.Symlink(ctx, outside, "text"); err != nil {
		t.Fatal(err)
	}
	spec := bash("pwd -P")
	spec.Dir = "text"
	if res, err := b.Exec(ctx, spec); err != nil || strings.TrimSpace(string(res.Stdout)) != outside {
		t.Errorf("%+v, %v", res, err)
	}
}
