package idmap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/sandbox"
)

// programTimeout bounds each run of newuidmap and newgidmap. They may ask a directory service.
const programTimeout = 20 * time.Second

// programs finds newuidmap and newgidmap, and that they may do what they are for.
func programs() (newuidmap, newgidmap string, err error) {
	if nnp, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err == nil && nnp == 1 {
		return "", "", missing("this process can't use newuidmap: it was started so that no program it runs gains rights (no_new_privs)",
			"start tongs without that: NoNewPrivileges=no in a systemd unit, without --security-opt no-new-privileges in a container", nil)
	}
	for name, to := range map[string]*string{"newuidmap": &newuidmap, "newgidmap": &newgidmap} {
		if *to = look(name); *to == "" {
			return "", "", missing(name+" is not installed: it maps the ids that /etc/subuid and /etc/subgid give", install(), nil)
		}
		if err := privileged(*to, map[string]int{"newuidmap": unix.CAP_SETUID, "newgidmap": unix.CAP_SETGID}[name]); err != nil {
			return "", "", err
		}
	}
	return newuidmap, newgidmap, nil
}

// look finds a program where distributions have it, and then on the PATH.
func look(name string) string {
	for _, dir := range []string{"/usr/bin", "/bin", "/usr/sbin", "/sbin", "/run/wrappers/bin"} {
		p := filepath.Join(dir, name)
		if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() && unix.Access(p, unix.X_OK) == nil {
			return p
		}
	}
	p, err := exec.LookPath(name)
	if err != nil || !filepath.IsAbs(p) {
		return ""
	}
	return p
}

// privileged says what keeps a program from running with rights of root, or with one capability.
func privileged(p string, capability int) error {
	var st unix.Stat_t
	if err := unix.Stat(p, &st); err != nil {
		return missing(p+": "+err.Error(), "", err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(p, &fs); err == nil && fs.Flags&unix.ST_NOSUID != 0 {
		return missing(p+" is on a file system that is mounted nosuid, so it has no rights", "mount it without: sudo mount -o remount,suid "+mountOf(p), nil)
	}
	if st.Uid == 0 && st.Mode&unix.S_ISUID != 0 {
		return nil
	}
	if capable(p, capability) {
		return nil
	}
	return missing(p+" is neither setuid root nor has it the capability to map ids", "sudo chown root:root "+p+" && sudo chmod u+s "+p, nil)
}

// capable reads a file's capabilities (struct vfs_cap_data in linux/capability.h): the low half of the
// permitted set is the second word.
func capable(p string, capability int) bool {
	buf := make([]byte, 64)
	n, err := unix.Getxattr(p, "security.capability", buf)
	if err != nil || n < 8 {
		return false
	}
	low := uint32(buf[4]) | uint32(buf[5])<<8 | uint32(buf[6])<<16 | uint32(buf[7])<<24
	return low&(1<<capability) != 0
}

// mountOf gives where the file system that holds p is mounted.
func mountOf(p string) string {
	best := "/"
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return best
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 4 && len(f[4]) > len(best) {
			if rel, err := filepath.Rel(f[4], p); err == nil && filepath.IsLocal(rel) {
				best = f[4]
			}
		}
	}
	return best
}

// packages are the names of what has newuidmap in it, by the ID or ID_LIKE of os-release(5), and the
// command that installs it.
var packages = []struct{ id, command string }{
	{"debian", "sudo apt-get install uidmap"},
	{"ubuntu", "sudo apt-get install uidmap"},
	{"fedora", "sudo dnf install shadow-utils-subid shadow-utils"},
	{"rhel", "sudo dnf install shadow-utils"},
	{"centos", "sudo dnf install shadow-utils"},
	{"suse", "sudo zypper install shadow"},
	{"opensuse", "sudo zypper install shadow"},
	{"arch", "sudo pacman -S shadow"},
	{"alpine", "sudo apk add shadow-subids"},
	{"gentoo", "sudo emerge sys-apps/shadow"},
	{"void", "sudo xbps-install shadow"},
}

// install is the command that installs newuidmap on this distribution.
func install() string {
	data, err := os.ReadFile("/etc/os-release")
	if err != nil {
		data, _ = os.ReadFile("/usr/lib/os-release") // and without it, the answer for all
	}
	return installFor(string(data))
}

func installFor(release string) string {
	var ids []string
	for line := range strings.Lines(release) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		if k == "ID" || k == "ID_LIKE" {
			ids = append(ids, strings.Fields(strings.Trim(v, `"'`))...)
		}
	}
	for _, id := range ids {
		for _, p := range packages {
			if p.id == id {
				return p.command
			}
		}
	}
	return "install the package that has it: uidmap (Debian, Ubuntu), shadow-utils (Fedora, RHEL), shadow (Arch, openSUSE), shadow-subids (Alpine)"
}

// Apply maps the ids of the user namespace that process pid has made; own adds the calling user's own
// ids, above all others. The process must be a child that hasn't been waited for.
func (m Map) apply(ctx context.Context, pid int, own bool) error {
	if err := m.Check(); err != nil {
		return err
	}
	newuidmap, newgidmap, err := programs()
	if err != nil {
		return err
	}
	uids, gids := m.UIDs, m.GIDs
	if own {
		uids = append(uids[:len(uids):len(uids)], Extent{ownID, uint32(os.Geteuid()), 1})
		gids = append(gids[:len(gids):len(gids)], Extent{ownID, uint32(os.Getegid()), 1})
	}
	ctx, cancel := context.WithTimeout(ctx, programTimeout)
	defer cancel()
	second := make(chan error, 1)
	go func() { second <- run(ctx, newgidmap, pid, gids) }()
	err = run(ctx, newuidmap, pid, uids)
	if serr := <-second; err == nil {
		err = serr
	}
	var e *sandbox.Error
	if errors.As(err, &e) && e.Hint == "" { // the ids, one kind or the other, aren't this user's
		e.Hint = "give them back: " + m.grant() + "; or begin with an empty TONGS_HOME"
	}
	return err
}

// Apply maps the ids of the user namespace that a child of this process was born in. The child must not
// have been waited for.
func (m Map) Apply(ctx context.Context, pid int) error { return m.apply(ctx, pid, false) }

func run(ctx context.Context, program string, pid int, extents []Extent) error {
	cmd := exec.CommandContext(ctx, program, append([]string{strconv.Itoa(pid)}, arguments(extents)...)...)
	cmd.Env = []string{"LC_ALL=C", "PATH=/usr/bin:/bin"}
	cmd.Dir = "/"
	var said bytes.Buffer
	cmd.Stderr = &said
	err := cmd.Run()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return refusal(program, strings.TrimSpace(said.String()), err)
}

// refusal says what newuidmap meant. Its words are those of shadow 4.13. Without a hint it is the ids.
func refusal(program, said string, err error) error {
	message := fmt.Sprintf("%s: %v", filepath.Base(program), err)
	if said != "" {
		message += ": " + said
	}
	e := &sandbox.Error{Code: sandbox.CodeMachineNotSupported, Op: "map user ids", Message: message, Err: err}
	switch {
	case strings.Contains(said, "not allowed"):
		e.Message = "the files belong to ids that /etc/subuid and /etc/subgid don't give (any more) to this user: " + said
	case strings.Contains(said, "Operation not permitted"):
		e.Hint = "something keeps " + program + " from its rights: a container without CAP_SETUID and CAP_SETGID, nosuid, or AppArmor; `tongs doctor` tells more"
	case strings.Contains(said, "user name"):
		e.Hint = "this user id has no line in /etc/passwd, which newuidmap needs: sudo useradd --uid " + strconv.Itoa(os.Getuid()) + " NAME"
	default:
		e.Hint = "`tongs doctor` tells more"
	}
	return e
}
