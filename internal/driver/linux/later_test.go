//go:build linux

package linux_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/driver/drivertest"
	"github.com/tongs-dev/tongs/internal/driver/linux"
	"github.com/tongs-dev/tongs/sandbox"
)

// laterEnv names a directory that TestSeesLaterMounts, as an ordinary user, lets a sandbox see.
const laterEnv = "TONGS_LINUX_TEST_LATER"

// TestRootlessLaterMounts sees that what the host mounts below a directory that an ordinary user's sandbox sees
// stays outside. Where there are rights, a row of the table of escapes does.
func TestRootlessLaterMounts(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount on the host")
	}
	dir, err := os.MkdirTemp("", "tongs-later-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	tmp, shared := filepath.Join(dir, "tmp"), filepath.Join(dir, "shared")
	must(t, os.Mkdir(tmp, 0o700))
	must(t, os.Chown(tmp, ordinary, ordinary))
	must(t, os.Mkdir(shared, 0o755))
	for _, m := range [][]string{{"-t", "tmpfs", "-o", "mode=0755", "tongs-test", shared}, {"--make-shared", shared}} {
		if out, err := exec.Command("mount", m...).CombinedOutput(); err != nil {
			t.Skipf("nothing can be mounted here: %s", out)
		}
	}
	t.Cleanup(func() { exec.Command("umount", "-l", shared).Run() })
	later := filepath.Join(shared, "later")
	must(t, os.Mkdir(later, 0o755))
	must(t, os.WriteFile(filepath.Join(shared, "before"), nil, 0o644))
	self, err := os.Executable()
	must(t, err)
	binary, guest := filepath.Join(dir, "test"), filepath.Join(dir, "tongs-guest")
	copyProgram(t, self, binary)
	copyProgram(t, drivertest.GuestBinary(t).Path, guest)

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-test.run", "^TestSeesLaterMounts$", "-test.v")
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + tmp, "TMPDIR=" + tmp, driver.GuestEnv + "=" + guest, laterEnv + "=" + shared}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: ordinary, Gid: ordinary}}
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	var all []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		all = append(all, lines.Text())
		if lines.Text() == "made" {
			must(t, exec.Command("mount", "-t", "tmpfs", "tongs-test", later).Run())
			must(t, os.WriteFile(filepath.Join(later, "marker"), nil, 0o644))
			must(t, in.Close())
		}
	}
	said := strings.Join(all, "\n")
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	if !strings.Contains(said, "\nsees before\n") {
		if strings.Contains(said, "SKIP") {
			t.Skip(said)
		}
		t.Errorf("control: the sandbox doesn't see what was there before\n%s", said)
	}
	if strings.Contains(said, "sees later") {
		t.Error("the sandbox sees what was mounted later")
	}
}

// TestSeesLaterMounts is the part of TestRootlessLaterMounts for another process.
func TestSeesLaterMounts(t *testing.T) {
	shared := os.Getenv(laterEnv)
	if shared == "" {
		t.Skip("a part of TestRootlessLaterMounts")
	}
	if reason := suite.Skip(); reason != "" {
		t.Skip(reason)
	}
	guest := drivertest.GuestBinary(t)
	d, err := linux.New(linux.Config{Home: filepath.Join(t.TempDir(), "home"), Guest: &guest})
	must(t, err)
	defer d.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	must(t, d.Create(ctx, driver.Spec{ID: "one", Image: hostImage(t), Binds: []driver.Bind{{Source: shared, Target: "/opt/shared"}}}))
	defer d.Destroy(context.WithoutCancel(ctx), "one")
	c, err := sandbox.Connect(ctx, func(ctx context.Context) (net.Conn, error) { return d.Dial(ctx, "one") })
	must(t, err)
	defer c.Close()
	fmt.Println("made")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	res, err := c.Exec(ctx, sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"sh", "-c",
		"test -e /opt/shared/before && echo sees before; test -e /opt/shared/later/marker && echo sees later; true"}}})
	must(t, err)
	fmt.Printf("\n%s", res.Stdout)
}
