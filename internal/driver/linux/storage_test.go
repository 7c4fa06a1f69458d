//go:build linux

package linux_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/driver/linux"
	"github.com/tongs-dev/tongs/sandbox"
)

const mib = 1 << 20

// needStorage skips where a storage can't be mounted.
func needStorage(t testing.TB) {
	t.Helper()
	needRoot(t)
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if _, err := os.Stat(filepath.Join(dir, "mkfs.ext4")); err == nil {
			if _, err := os.Stat("/dev/loop-control"); err != nil {
				t.Skip("this machine has no loop devices")
			}
			return
		}
	}
	t.Skip("there is no mkfs.ext4")
}

// storageHome gives a home, from which a storage is unmounted after the test, whatever happened.
func storageHome(t testing.TB) string {
	home := t.TempDir()
	t.Cleanup(func() {
		_ = unix.Unmount(filepath.Join(home, "sandboxes"), unix.MNT_DETACH)
		if loop := lastingLoop(t, home); loop != "" {
			t.Errorf("%s is left", loop)
		}
	})
	return home
}

// open makes a driver on a home with a storage, or with what storage there is.
func open(t testing.TB, home string, size int64) (*linux.Driver, error) {
	t.Helper()
	p, err := initBinary()
	must(t, err)
	return linux.New(linux.Config{Home: home, Guest: &driver.Guest{Path: p}, StorageBytes: size, ReserveBytes: -1})
}

// loopOf gives the devices with the storage of a home.
func loopOf(t testing.TB, home string) string {
	t.Helper()
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	must(t, err)
	var found []string
	for _, f := range files {
		if text, err := os.ReadFile(f); err == nil && strings.HasPrefix(string(text), home+"/") {
			found = append(found, f)
		}
	}
	return strings.Join(found, " ")
}

// lastingLoop is loopOf, after a while if there is one: what other tests start just now has copies of all mounts at
// first, and what runs a sandbox on gVisor keeps them as long as it lives.
func lastingLoop(t testing.TB, home string) (found string) {
	t.Helper()
	const patience, most = 30 * time.Second, 5 * time.Minute
	began := time.Now()
	alone := began // since when nobody else has it mounted
	for looked := began; time.Since(began) < most && time.Since(alone) < patience; time.Sleep(10 * time.Millisecond) {
		if found = loopOf(t, home); found == "" {
			return ""
		}
		if time.Since(looked) > time.Second {
			if looked = time.Now(); mountedSomewhere(home) {
				alone = looked
			}
		}
	}
	return found
}

// mountedSomewhere reports whether any process sees a mount below home.
func mountedSomewhere(home string) bool {
	all, _ := filepath.Glob("/proc/[0-9]*/mountinfo")
	return slices.ContainsFunc(all, func(file string) bool {
		text, _ := os.ReadFile(file) // it may have ended
		return bytes.Contains(text, []byte(home+"/"))
	})
}

func wantCode(t testing.TB, err error, want sandbox.Code) {
	t.Helper()
	var e *sandbox.Error
	if !errors.As(err, &e) || e.Code != want || e.Hint == "" && want != sandbox.CodeInvalidArgument {
		t.Errorf("got error %v, want one with code %s and a cure", err, want)
	}
}

func diskMiB(t testing.TB, home string) int64 {
	t.Helper()
	var st unix.Statfs_t
	must(t, unix.Statfs(filepath.Join(home, "sandboxes"), &st))
	return int64(st.Blocks) * st.Bsize / mib
}

// TestStorage leads a storage through its life.
func TestStorage(t *testing.T) {
	t.Parallel()
	needStorage(t)
	home := storageHome(t)
	_, err := open(t, home, 1<<20)
	wantCode(t, err, sandbox.CodeInvalidArgument)
	d, err := open(t, home, 96*mib)
	must(t, err)
	image := filepath.Join(home, "storage.img")
	info, err := os.Stat(image)
	must(t, err)
	if info.Size() != 96*mib || blocks(t, image) < 96*mib {
		t.Errorf("the image has %d bytes, of which %d are taken", info.Size(), blocks(t, image))
	}
	create(t, d, driver.Spec{ID: "one"})
	if left, err := d.Leaks(t.Context()); err != nil || len(left) > 0 {
		t.Errorf("leaks: %q, %v", left, err)
	}

	// A sandbox fills it. That is not the disk of the home, and the sandbox goes on.
	if got := sh(t, d, "one", "head -c 1M /dev/zero > small && head -c 500M /dev/zero > big; echo $?; rm big; head -c 1M /dev/zero > next && cat next small | wc -c"); !strings.Contains(got, "No space left") && !strings.Contains(got, "quota") || !strings.HasSuffix(got, "\n1\n2097152") {
		t.Errorf("500 MiB in a storage of 96: %q", got)
	}

	// What is there when this process ends without a word is what the next one finds. It can't grow while it is
	// in use.
	must(t, d.Close())
	_, err = open(t, home, 128*mib)
	wantCode(t, err, driver.CodeBusy)
	_, err = open(t, home, 64*mib)
	wantCode(t, err, sandbox.CodeInvalidArgument)
	d, err = open(t, home, 0)
	must(t, err)
	if got := sh(t, d, "one", "cat small | wc -c"); got != "1048576" {
		t.Errorf("after the process that made it: %q", got)
	}
	must(t, d.Detach(t.Context())) // a sandbox runs: not now
	if loopOf(t, home) == "" {
		t.Error("it was detached while a sandbox ran")
	}
	must(t, d.Stop(t.Context(), "one"))
	other, err := open(t, home, 0)
	must(t, err)
	must(t, other.Detach(t.Context())) // the first one uses it: not now
	must(t, other.Close())
	if loopOf(t, home) == "" {
		t.Error("it was detached while another process used it")
	}
	must(t, d.Detach(t.Context()))
	must(t, d.Close())
	if loop := lastingLoop(t, home); loop != "" {
		t.Errorf("%s is left of a storage that was detached", loop)
	}
	if _, err := os.Stat(filepath.Join(home, "sandboxes", "one")); err == nil {
		t.Error("it is still mounted")
	}

	// The next one attaches and enlarges it.
	d, err = open(t, home, 256*mib)
	must(t, err)
	if n := diskMiB(t, home); n < 200 {
		t.Errorf("it has %d MiB after growing to 256", n)
	}
	must(t, d.Start(t.Context(), "one"))
	if got := sh(t, d, "one", "cat small | wc -c; head -c 150M /dev/zero > big && rm big && echo fits"); got != "1048576\nfits" {
		t.Errorf("after growing: %q", got)
	}
	if left, err := d.Leaks(t.Context()); err != nil || len(left) > 0 {
		t.Errorf("leaks: %q, %v", left, err)
	}
	must(t, d.Destroy(t.Context(), "one"))
	must(t, d.Detach(t.Context()))
	must(t, d.Close())
}

// blocks gives how many bytes of a file have space of their own.
func blocks(t testing.TB, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	return st.Blocks * 512
}

// TestStorageRefused asks for what can't be.
func TestStorageRefused(t *testing.T) {
	t.Parallel()
	needStorage(t)
	t.Run("sandboxes exist", func(t *testing.T) {
		home := storageHome(t)
		d, err := open(t, home, 0)
		must(t, err)
		create(t, d, driver.Spec{ID: "one"})
		_, err = open(t, home, 64*mib)
		wantCode(t, err, sandbox.CodeAlreadyExists)
		if got := sh(t, d, "one", "echo fine"); got != "fine" {
			t.Errorf("the sandbox in the way: %q", got)
		}
		must(t, d.Destroy(t.Context(), "one"))
		must(t, d.Close())
		d, err = open(t, home, 64*mib)
		must(t, err)
		must(t, d.Detach(t.Context()))
		must(t, d.Close())
	})
	t.Run("too large", func(t *testing.T) {
		home := storageHome(t)
		_, err := open(t, home, 1<<50)
		wantCode(t, err, sandbox.CodeNoSpace)
		if entries, _ := filepath.Glob(filepath.Join(home, "storage.img*")); len(entries) > 0 {
			t.Errorf("left over: %q", entries)
		}
	})
	t.Run("another mount", func(t *testing.T) {
		home := storageHome(t)
		must(t, os.Mkdir(filepath.Join(home, "sandboxes"), 0o700))
		must(t, unix.Mount("tmpfs", filepath.Join(home, "sandboxes"), "tmpfs", 0, "size=1m"))
		_, err := open(t, home, 64*mib)
		wantCode(t, err, sandbox.CodeAlreadyExists)
	})
	t.Run("damaged", func(t *testing.T) {
		home := storageHome(t)
		must(t, os.WriteFile(filepath.Join(home, "storage.img"), make([]byte, mib), 0o600))
		_, err := open(t, home, 0)
		wantCode(t, err, sandbox.CodeInternal)
	})
}

// storageEnv makes the test binary attach and detach a storage for ever; its value is the home.
const storageEnv = "TONGS_STORAGE_TEST"

func playStorage(home string) int {
	for {
		d, err := linux.New(linux.Config{Home: home, StorageBytes: 64 * mib, Logger: slog.New(slog.DiscardHandler), Guest: &driver.Guest{Path: "/bin/true"}})
		if err == nil {
			err = errors.Join(d.Detach(context.Background()), d.Close())
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
}

// TestStorageKilled kills a process at any moment of making, attaching and detaching a storage.
func TestStorageKilled(t *testing.T) {
	t.Parallel()
	needStorage(t)
	rounds := 8
	if os.Getenv("TONGS_TEST_LONG") != "" {
		rounds = 100
	}
	self, err := os.Executable()
	must(t, err)
	for i := range rounds {
		home := storageHome(t)
		cmd := exec.CommandContext(t.Context(), self)
		cmd.Env = append(os.Environ(), storageEnv+"="+home)
		cmd.Stderr = os.Stderr
		must(t, cmd.Start())
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(250_000))*time.Microsecond)
		<-ctx.Done() // a random moment is what this test is about
		cancel()
		must(t, cmd.Process.Kill())
		if err := cmd.Wait(); !strings.Contains(fmt.Sprint(err), "killed") {
			t.Fatalf("round %d: it ended by itself: %v", i, err)
		}
		d, err := open(t, home, 64*mib)
		if err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		create(t, d, driver.Spec{ID: "one"})
		must(t, d.Destroy(t.Context(), "one"))
		must(t, d.Detach(t.Context()))
		must(t, d.Close())
		if loop := lastingLoop(t, home); loop != "" {
			t.Errorf("round %d: %s is left", i, loop)
		}
		if more, _ := filepath.Glob(filepath.Join(home, "*.new")); len(more) > 0 {
			t.Errorf("round %d: %q is left", i, more)
		}
	}
}
