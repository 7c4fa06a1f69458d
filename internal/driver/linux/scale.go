//go:build linux

package linux

import (
	"fmt"
	"math"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/driver"
)

// What one sandbox takes of this machine's limits: its guest's threads and a few of a command's; the descriptors
// of this process for it, with its connections and listeners; memory of the guest and of the kernel.
const (
	guestThreads    = 12
	descriptorsEach = 8
	mibEach         = 3

	fewSandboxes = 1000 // a machine that has no room for so many is told why
	enough       = 10_000
)

// bound is a limit of the machine, in sandboxes.
type bound struct {
	sandboxes  int
	what, cure string
}

// checkScale says how many sandboxes there can be at once, and what runs out first.
func (d *Driver) checkScale() driver.Finding {
	const name = "room"
	least := bound{sandboxes: math.MaxInt}
	for _, b := range d.bounds() {
		if b.sandboxes < least.sandboxes {
			least = b
		}
	}
	detail := fmt.Sprintf("for about %d sandboxes at once; what runs out first is %s", least.sandboxes, least.what)
	switch {
	case least.sandboxes < fewSandboxes:
		return finding(name, driver.Warning, detail, least.cure)
	case least.sandboxes < enough:
		return finding(name, driver.OK, detail+" ("+least.cure+")", "")
	}
	return finding(name, driver.OK, detail, "")
}

func (d *Driver) bounds() []bound {
	all := []bound{{lastSlot - firstSlot + 1, "ranges of user ids", "use several machines"}}
	numbers := []struct {
		key  string
		each int
		want string
	}{{"kernel/pid_max", guestThreads, "4194304"}, {"kernel/threads-max", guestThreads, "4194304"}}
	if d.rootless { // otherwise each sandbox is another user
		for _, kind := range []string{"user", "mnt", "pid", "net", "ipc", "uts"} {
			numbers = append(numbers, struct {
				key  string
				each int
				want string
			}{"user/max_" + kind + "_namespaces", 1, "65536"})
		}
		if n, ok := limitOf(unix.RLIMIT_NPROC); ok {
			all = append(all, bound{n / guestThreads, fmt.Sprintf("this user's processes (ulimit -u: %d)", n), "raise nproc in /etc/security/limits.conf"})
		}
	}
	for _, s := range numbers {
		if n, ok := sysctl(s.key); ok {
			key := strings.ReplaceAll(s.key, "/", ".")
			all = append(all, bound{n / s.each, fmt.Sprintf("%s=%d", key, n), "sysctl -w " + key + "=" + s.want})
		}
	}
	if n, ok := limitOf(unix.RLIMIT_NOFILE); ok {
		all = append(all, bound{n / descriptorsEach, fmt.Sprintf("this process's open files (ulimit -Hn: %d)", n), "ulimit -Hn 1048576, or LimitNOFILE=1048576 in the unit"})
	}
	if mib, ok := availableMiB(); ok {
		all = append(all, bound{mib / mibEach, fmt.Sprintf("memory (%d MiB are available)", mib), "a machine with more"})
	}
	return all
}

// limitOf is the hard limit of a resource; ok is false when there is none.
func limitOf(resource int) (n int, ok bool) {
	var l unix.Rlimit
	if err := unix.Getrlimit(resource, &l); err != nil || l.Max > math.MaxInt32 {
		return 0, false
	}
	return int(l.Max), true
}

func availableMiB() (n int, ok bool) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, false
	}
	_, rest, found := strings.Cut(string(text), "MemAvailable:")
	if !found {
		return 0, false
	}
	if _, err := fmt.Sscan(rest, &n); err != nil {
		return 0, false
	}
	return n / 1024, true
}
