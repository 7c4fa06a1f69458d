//go:build linux

package linux

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestExplain goes through what this machine can't be: others, by what a process sees of them.
func TestExplain(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name      string
		s         surroundings
		what      making
		err       error
		why, cure string // parts of them
	}{
		{"Ubuntu", surroundings{appArmor: true, label: "unconfined", program: "/opt/my tongs/tongs"}, makingMounts, unix.EACCES,
			"AppArmor", "sudo tee /etc/apparmor.d/tongs <<'EOF'\nabi <abi/4.0>,\ninclude <tunables/global>\nprofile tongs \"/opt/my tongs/tongs\" flags=(unconfined) {\n  userns,\n"},
		{"Ubuntu, and loaded", surroundings{appArmor: true, label: "unconfined"}, makingNamespaces, unix.EACCES, "", "sudo apparmor_parser -r /etc/apparmor.d/tongs"},
		{"Ubuntu, with a profile", surroundings{appArmor: true, label: "tongs (unconfined)"}, makingMounts, unix.EACCES, "", ""},
		{"Ubuntu, root", surroundings{appArmor: true, label: "unconfined", root: true, sysAdmin: true}, makingMounts, unix.EACCES, "", ""},
		{"Debian of old", surroundings{cloneOff: true}, makingNamespaces, unix.EPERM, "unprivileged_userns_clone", "sudo sysctl -w kernel.unprivileged_userns_clone=1"},
		{"hardened", surroundings{noUsers: true}, makingNamespaces, unix.ENOSPC, "max_user_namespaces", "sudo sysctl -w user.max_user_namespaces=65536"},
		{"too many", surroundings{}, makingNamespaces, unix.ENOSPC, "no more namespaces", "user.max_user_namespaces"},
		{"a chroot", surroundings{chroot: true}, makingNamespaces, unix.EPERM, "chroot", "bwrap"},
		{"docker", surroundings{container: "docker", filtered: true}, makingNamespaces, unix.EPERM, "filter of system calls", "--security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined"},
		{"docker without its filter", surroundings{container: "docker", masked: []string{"/proc/kcore"}}, makingMounts, unix.EPERM, "/proc/kcore", "systempaths=unconfined"},
		{"docker, root", surroundings{container: "docker", root: true, filtered: true}, makingNamespaces, unix.EPERM, "without CAP_SYS_ADMIN", "--privileged"},
		{"podman", surroundings{container: "podman", masked: []string{"/proc/kcore"}}, makingMounts, unix.EPERM, "masked", "--security-opt unmask=ALL"},
		{"podman, root without root", surroundings{container: "podman", root: true, sysAdmin: true, fewIDs: true}, makingNamespaces, unix.EINVAL, "user ids of its own", "podman run"},
		{"kubernetes", surroundings{container: "kubernetes", filtered: true}, makingNamespaces, unix.EPERM, "kubernetes", "procMount: Unmasked"},
		{"lxc", surroundings{container: "lxc", masked: []string{"/proc/kcore"}}, makingMounts, unix.EPERM, "lxc", "security.nesting true"},
		{"systemd", surroundings{filtered: true}, makingNamespaces, unix.EPERM, "seccomp", "RestrictNamespaces=no"},
		{"a user namespace", surroundings{root: true, sysAdmin: true, fewIDs: true}, makingNamespaces, unix.EINVAL, "not of the machine", "/etc/subuid"},
		{"nothing known", surroundings{label: "unconfined"}, makingMounts, unix.EPERM, "", ""},
	} {
		why, cure := test.s.explain(test.what, test.err)
		if !strings.Contains(why, test.why) || !strings.Contains(cure, test.cure) || (why == "") != (cure == "") || test.why == "" && test.cure == "" && why != "" {
			t.Errorf("%s:\nwhy  %s\ncure %s", test.name, why, cure)
		}
	}
}

func TestOverProc(t *testing.T) {
	t.Parallel()
	const machine = `21 1 254:0 / / rw,relatime - ext4 /dev/vda rw
22 21 0:20 / /proc rw,nosuid - proc proc rw
23 22 0:21 / /proc/sys/fs/binfmt_misc rw - autofs systemd-1 rw
24 22 0:22 / /proc/fs/nfsd rw - nfsd nfsd rw
`
	if noRoot, masked := overProc(machine); noRoot || masked != nil {
		t.Error(noRoot, masked)
	}
	const docker = "24 22 0:22 / /proc/kcore rw - tmpfs tmpfs rw\n25 22 0:20 /bus /proc/bus ro - proc proc rw\n25 22 0:20 / /process ro - proc proc rw\ncut\n"
	if noRoot, masked := overProc(docker); !noRoot || strings.Join(masked, " ") != "/proc/kcore /proc/bus" {
		t.Error(noRoot, masked)
	}
}

func TestFewIDs(t *testing.T) {
	t.Parallel()
	for uidMap, want := range map[string]bool{
		"         0          0 4294967295\n":         false,
		"         0    1000000 2000000000\n":         false,
		"         0     100000      65536\n":         true,
		"         0       1000          1\n 1 2 3\n": true,
		"": true,
	} {
		if fewIDs(uidMap) != want {
			t.Errorf("%q", uidMap)
		}
	}
}
