//go:build linux

package linux_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/internal/driver"
)

// TestContainers makes a sandbox in containers as Docker starts them: as it does without options, and with
// those that the errors name, which have to help.
func TestContainers(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("containers with runc need root")
	}
	if _, err := exec.LookPath("runc"); err != nil {
		t.Skip("there is no runc")
	}
	guest, err := initBinary()
	must(t, err)
	for _, test := range []struct {
		name                      string
		uid                       int
		filter, masks, privileged bool
		works                     bool
		finding, why, cure        string
	}{
		{name: "Usual", uid: 1000, filter: true, masks: true, finding: "sandbox", why: "filter of system calls refuses user namespaces", cure: "--security-opt seccomp=unconfined"},
		{name: "NoFilter", uid: 1000, masks: true, finding: "sandbox", why: "/proc are masked", cure: "--security-opt systempaths=unconfined"},
		{name: "NoFilterNoMasks", uid: 1000, works: true, finding: "sandbox", why: "one was made"},
		{name: "UsualRoot", filter: true, masks: true, finding: "rights", why: "without CAP_SYS_ADMIN", cure: "docker run --user 1000"},
		{name: "RootNoFilter", finding: "rights", why: "without CAP_SYS_ADMIN", cure: "docker run --privileged"},
		{name: "Privileged", privileged: true, works: true, finding: "sandbox", why: "one was made"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir, err := os.MkdirTemp("", "tongs-container-")
			must(t, err)
			t.Cleanup(func() { os.RemoveAll(dir) })
			data := filepath.Join(dir, "data")
			must(t, os.Mkdir(data, 0o755))
			must(t, os.Chown(data, test.uid, test.uid))
			self, err := os.Executable()
			must(t, err)
			copyProgram(t, self, filepath.Join(data, "test"))
			copyProgram(t, guest, filepath.Join(data, "init"))
			bundle(t, dir, test.uid, test.filter, test.masks, test.privileged)
			v := contain(t, dir, data)

			p := place{name: test.name, works: test.works, finding: test.finding, why: test.why, cure: test.cure}
			for who, said := range v.says(t, p) {
				if !strings.Contains(said[0], test.why) || !strings.Contains(said[1], test.cure) {
					t.Errorf("%s says %q → %q, and should name %q → %q", who, said[0], said[1], test.why, test.cure)
				}
			}
		})
	}
}

// contain runs TestInPlace in a container.
func contain(t *testing.T, dir, data string) verdict {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	id := "tongs-test-" + strings.ToLower(rand.Text()[:10])
	cmd := exec.CommandContext(ctx, "runc", "--root", filepath.Join(dir, "runc"), "run", "--bundle", dir, id)
	out, err := cmd.CombinedOutput()
	t.Cleanup(func() {
		// It is gone when its process has ended; this is for one that was killed.
		_ = exec.Command("runc", "--root", filepath.Join(dir, "runc"), "delete", "--force", id).Run()
	})
	text, rerr := os.ReadFile(filepath.Join(data, "verdict"))
	if rerr != nil && strings.Contains(string(out), "runc run failed") {
		t.Skipf("runc can't run here: %s", out)
	}
	if err != nil || rerr != nil {
		t.Fatalf("%v, %v\n%s", err, rerr, out)
	}
	var v verdict
	must(t, json.Unmarshal(text, &v))
	return v
}

// bundle writes a container: the host's programs, and what Docker gives and takes.
func bundle(t *testing.T, dir string, uid int, filter, masks, privileged bool) {
	t.Helper()
	type object = map[string]any
	usual := []string{"CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"}
	if privileged {
		usual = append(usual, "SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE", "IPC_OWNER", "SYS_NICE", "DAC_READ_SEARCH", "LINUX_IMMUTABLE", "IPC_LOCK", "LEASE")
	}
	var bounding, effective []string
	for _, c := range usual {
		bounding = append(bounding, "CAP_"+c)
	}
	if uid == 0 {
		effective = bounding
	}
	root := filepath.Join(dir, "rootfs")
	for _, sub := range []string{"dev", "etc", "proc", "sys", "tmp", "usr", "data"} {
		must(t, os.MkdirAll(filepath.Join(root, sub), 0o755))
	}
	for _, name := range []string{"bin", "lib", "lib64", "sbin"} {
		must(t, os.Symlink("usr/"+name, filepath.Join(root, name)))
	}
	for name, text := range map[string]string{".dockerenv": "", "etc/hosts": "", "etc/passwd": "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n", "etc/group": "root:x:0:\nuser:x:1000:\n"} {
		must(t, os.WriteFile(filepath.Join(root, name), []byte(text), 0o644))
	}
	mount := func(kind, at string, options ...string) object {
		source := kind
		if kind == "bind" {
			source, options = options[0], append(options[1:], "rbind")
		}
		return object{"destination": at, "type": kind, "source": source, "options": options}
	}
	linux := object{"namespaces": []object{{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}}}
	if masks {
		linux["maskedPaths"] = []string{"/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/scsi", "/sys/firmware"}
		linux["readonlyPaths"] = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
	}
	env := []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=/data", placeEnv + "=container", smallEnv + "=/data/init"}
	args := []string{"/data/test", "-test.run", "^TestInPlace$"}
	if filter { // this runc may know no seccomp
		env[2] = placeEnv + "=Filter"
	}
	config := object{
		"ociVersion": "1.0.2", "hostname": "container", "root": object{"path": "rootfs"}, "linux": linux,
		"process": object{"user": object{"uid": uid, "gid": uid}, "cwd": "/", "args": args, "env": env,
			"capabilities": object{"bounding": bounding, "effective": effective, "permitted": effective}},
		"mounts": []object{
			mount("proc", "/proc", "nosuid", "noexec", "nodev"), mount("tmpfs", "/dev", "nosuid", "mode=755"), mount("sysfs", "/sys", "ro"),
			mount("devpts", "/dev/pts", "newinstance", "ptmxmode=0666", "mode=0620"), mount("tmpfs", "/dev/shm", "nosuid", "nodev", "mode=1777"),
			mount("bind", "/usr", "/usr", "ro"), mount("bind", "/etc/hosts", "/etc/hosts", "ro"), mount("bind", "/data", filepath.Join(dir, "data")), mount("tmpfs", "/tmp", "mode=1777"),
		},
	}
	data, err := json.Marshal(config)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "config.json"), data, 0o600))
}

// says gives what was said in a place, by whom, each with its cure, and looks whether it ended as it should.
func (v verdict) says(t *testing.T, p place) map[string][2]string {
	t.Helper()
	said := make(map[string][2]string)
	if i := slices.IndexFunc(v.Findings, func(f driver.Finding) bool { return f.Name == p.finding }); i < 0 {
		t.Errorf("no finding %q in %v", p.finding, v.Findings)
	} else if f := v.Findings[i]; (f.Level == driver.Failure) == p.works {
		t.Errorf("the finding is a %s: %s", f.Level, f.Detail)
	} else {
		said["doctor"] = [2]string{f.Detail, f.Cure}
	}
	if p.works != (v.Code == "") {
		t.Errorf("a sandbox: %s %s", v.Code, v.Message)
	}
	if !p.works {
		said["the error"] = [2]string{v.Message, v.Hint}
		if v.Code != driver.CodeUnsupported {
			t.Errorf("the error is %s", v.Code)
		}
	}
	return said
}
