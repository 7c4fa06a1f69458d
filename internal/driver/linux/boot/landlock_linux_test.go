package boot

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// fenced runs f on a thread of its own in a domain; the thread is thrown away. Without restrict it does the same.
func fenced(t testing.TB, restrict func() error, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if _, _, e := unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0); e != 0 {
			done <- e
			return
		}
		if restrict != nil {
			if err := restrict(); err != nil {
				done <- err
				return
			}
		}
		f()
		done <- nil
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// tree is one as a sandbox's.
func tree(t testing.TB) string {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"dev/shm", "dev/mqueue", "proc", "sys", "home/user", "tmp", "var/lib"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"proc/comm", "dev/null", "home/user/old", "home/user/long", "proc/gone"} {
		if err := os.WriteFile(filepath.Join(root, file), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("home", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestFence(t *testing.T) {
	t.Parallel()
	newest := LandlockVersion()
	if newest < landlockRefer {
		t.Skipf("this kernel has version %d of Landlock", newest)
	}
	if restrict, err := fence(landlockRefer-1, "/", false); restrict != nil || err != nil {
		t.Errorf("a version that keeps files from being moved: %v", err)
	}
	for version := landlockRefer; version <= newest; version++ {
		for _, rooted := range []bool{false, true} {
			root := tree(t)
			at := func(name string) string { return filepath.Join(root, name) }
			attempts := map[string]func() error{
				"write a file": func() error { return os.WriteFile(at("home/user/new"), []byte("x"), 0o644) },
				"truncate":     func() error { return os.Truncate(at("home/user/long"), 0) },
				"move and link": func() error {
					return errors.Join(os.Rename(at("home/user/old"), at("var/lib/old")), os.Link(at("var/lib/old"), at("tmp/old")))
				},
				"make directories":  func() error { return os.MkdirAll(at("tmp/a/b"), 0o755) },
				"make a fifo":       func() error { return unix.Mkfifo(at("tmp/fifo"), 0o644) },
				"write to a device": func() error { return os.WriteFile(at("dev/null"), nil, 0) },
				"write to shm":      func() error { return os.WriteFile(at("dev/shm/x"), nil, 0o644) },
				"read proc":         func() error { _, err := os.ReadFile(at("proc/comm")); return err },
				"signal itself":     func() error { return unix.Kill(os.Getpid(), 0) },
			}
			refusals := map[string]func() error{
				"make a device": func() error { return unix.Mknod(at("tmp/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))) },
			}
			inProc := map[string]func() error{
				"write to proc":    func() error { return os.WriteFile(at("proc/comm"), []byte("y"), 0) },
				"make in the root": func() error { return os.Mkdir(at("new"), 0o755) },
				"remove in proc":   func() error { return os.Remove(at("proc/gone")) },
			}
			if os.Geteuid() != 0 {
				delete(refusals, "make a device")
			}
			outside := exec.CommandContext(t.Context(), "sleep", "60")
			if err := outside.Start(); err != nil {
				t.Fatal(err)
			}
			signal := func() error { return unix.Kill(outside.Process.Pid, 0) }
			if version >= landlockScopes {
				refusals["signal a process outside"] = signal
			} else {
				attempts["signal a process outside"] = signal
			}
			for name, f := range inProc {
				if rooted {
					attempts[name] = f
				} else {
					refusals[name] = f
				}
			}
			restrict, err := fence(version, root, rooted)
			if err != nil || restrict == nil {
				t.Fatalf("version %d: %v", version, err)
			}
			fenced(t, restrict, func() {
				for name, f := range refusals {
					if err := f(); !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EPERM) {
						t.Errorf("version %d, rooted %v: %s: %v", version, rooted, name, err)
					}
				}
				for name, f := range attempts {
					if err := f(); err != nil {
						t.Errorf("version %d, rooted %v: %s: %v", version, rooted, name, err)
					}
				}
			})
			// The control: without the fence the same is possible.
			fenced(t, nil, func() {
				for name, f := range refusals {
					if err := f(); err != nil {
						t.Errorf("control: %s: %v", name, err)
					}
				}
			})
			outside.Process.Kill()
			outside.Wait()
		}
	}
}

// TestFenceOfManyPlaces sees that a sandbox can't make its own start long.
func TestFenceOfManyPlaces(t *testing.T) {
	t.Parallel()
	if LandlockVersion() < landlockRefer {
		t.Skip("this kernel has no Landlock that is of use")
	}
	root := tree(t)
	for i := range maxPlaces {
		if err := os.Mkdir(filepath.Join(root, "d"+strings.Repeat("x", i%50)+string(rune('a'+i/50))), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	all, err := places(root, change, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		unix.Close(p.dir)
	}
	if len(all) != 4 {
		t.Errorf("%d rules", len(all))
	}
}

// BenchmarkFence measures what the start of a sandbox, and what opening files, pays for the fence.
func BenchmarkFence(b *testing.B) {
	version := LandlockVersion()
	if version < landlockRefer {
		b.Skip("this kernel has no Landlock that is of use")
	}
	root := tree(b)
	deep := filepath.Join(root, "home/user", "a/b/c/d/e/f")
	if err := os.MkdirAll(deep, 0o755); err != nil {
		b.Fatal(err)
	}
	file := filepath.Join(deep, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		b.Fatal(err)
	}
	b.Run("prepare", func(b *testing.B) {
		for b.Loop() {
			restrict, err := fence(version, root, false)
			if err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			fenced(b, restrict, func() {})
			b.StartTimer()
		}
	})
	for _, how := range []struct {
		name  string
		flags int
	}{{"read", unix.O_RDONLY}, {"write", unix.O_WRONLY}} {
		for _, with := range []bool{false, true} {
			name := map[bool]string{false: "without", true: "with"}[with]
			b.Run("open/"+how.name+"/"+name, func(b *testing.B) {
				var restrict func() error
				if with {
					var err error
					if restrict, err = fence(version, root, false); err != nil {
						b.Fatal(err)
					}
				}
				fenced(b, restrict, func() {
					for b.Loop() {
						fd, err := unix.Open(file, how.flags|unix.O_CLOEXEC, 0)
						if err != nil {
							b.Error(err)
							return
						}
						unix.Close(fd)
					}
				})
			})
		}
	}
	for _, with := range []bool{false, true} {
		b.Run("exec/"+map[bool]string{false: "without", true: "with"}[with], func(b *testing.B) {
			var restrict func() error
			if with {
				var err error
				if restrict, err = fence(version, "/", false); err != nil {
					b.Fatal(err)
				}
			}
			fenced(b, restrict, func() {
				for b.Loop() {
					if err := exec.Command("/bin/true").Run(); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
