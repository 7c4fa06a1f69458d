//go:build linux

package oci

import (
	"encoding/json"

	"github.com/tongs-dev/tongs/internal/driver/linux"
)

// The parts of the OCI runtime specification's config.json (config.md and config-linux.md, 1.0.2) that are
// used here.
type (
	bundle struct {
		Version  string  `json:"ociVersion"`
		Process  process `json:"process"`
		Root     root    `json:"root"`
		Hostname string  `json:"hostname"`
		Mounts   []mount `json:"mounts"`
		Linux    host    `json:"linux"`
	}
	process struct {
		User            user         `json:"user"`
		Args            []string     `json:"args"`
		Env             []string     `json:"env"`
		Cwd             string       `json:"cwd"`
		Capabilities    capabilities `json:"capabilities"`
		NoNewPrivileges bool         `json:"noNewPrivileges"`
	}
	user struct {
		UID uint32 `json:"uid"`
		GID uint32 `json:"gid"`
	}
	capabilities struct {
		Bounding  []string `json:"bounding"`
		Effective []string `json:"effective"`
		Permitted []string `json:"permitted"`
	}
	root struct {
		Path string `json:"path"`
	}
	mount struct {
		Destination string   `json:"destination"`
		Type        string   `json:"type"`
		Source      string   `json:"source"`
		Options     []string `json:"options,omitempty"`
	}
	host struct {
		Namespaces  []namespace `json:"namespaces"`
		UIDMappings []idMapping `json:"uidMappings"`
		GIDMappings []idMapping `json:"gidMappings"`
		Groups      string      `json:"cgroupsPath,omitempty"`
	}
	namespace struct {
		Type string `json:"type"`
	}
	idMapping struct {
		Container uint32 `json:"containerID"`
		Host      uint32 `json:"hostID"`
		Size      uint32 `json:"size"`
	}
)

// guestCapabilities are what the guest keeps, over its own user namespace: package boot says what for.
var guestCapabilities = []string{"CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_NET_BIND_SERVICE"}

// setUpCapabilities are what it needs besides until it has set itself up, and what commands get that may run
// as root.
var setUpCapabilities = []string{"CAP_SETPCAP", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID"}

// hostKernelCapabilities are what it needs besides where it protects the host's kernel from its commands.
var hostKernelCapabilities = []string{"CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_SYS_RESOURCE"}

// config writes the bundle's config.json.
func config(p linux.Place, ownKernel bool) ([]byte, error) {
	caps := append(append([]string{}, guestCapabilities...), setUpCapabilities...)
	ids := []idMapping{{Container: 0, Host: p.Base, Size: p.IDs}}
	b := bundle{
		Version:  "1.0.2",
		Hostname: p.Hostname,
		Root:     root{Path: p.Root},
		Mounts: []mount{
			{"/proc", "proc", "proc", []string{"nosuid", "noexec", "nodev"}},
			{"/dev", "tmpfs", "tmpfs", []string{"nosuid", "noexec", "strictatime", "mode=755", "size=64k"}},
			{"/dev/pts", "devpts", "devpts", []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{"/dev/shm", "tmpfs", "shm", append([]string{"nosuid", "noexec", "nodev", "mode=1777"}, p.Shm...)},
			{"/dev/mqueue", "mqueue", "mqueue", []string{"nosuid", "noexec", "nodev"}},
			{"/sys", "sysfs", "sysfs", []string{"nosuid", "noexec", "nodev", "ro"}},
			{"/tmp", "tmpfs", "tmp", append([]string{"nosuid", "nodev", "mode=1777"}, p.Tmp...)},
			{linux.GuestPath, "bind", p.Guest, []string{"bind", "ro", "nosuid", "nodev"}},
		},
		Linux: host{
			Namespaces:  []namespace{{"user"}, {"mount"}, {"pid"}, {"ipc"}, {"uts"}},
			UIDMappings: ids, GIDMappings: ids,
		},
	}
	if ownKernel {
		caps = append(caps, "CAP_SYS_ADMIN") // to mount the control groups of its own kernel
		b.Mounts = append(b.Mounts, mount{linux.SocketDir, "bind", p.Socket, []string{"bind", "rw", "nosuid", "nodev", "noexec"}})
	} else {
		caps = append(caps, hostKernelCapabilities...)
		// The network is the sandbox's own to set up, and so belongs to its user namespace.
		b.Linux.Namespaces = append(b.Linux.Namespaces, namespace{"network"}, namespace{"cgroup"})
		b.Linux.Groups = p.Groups
	}
	b.Process = process{
		Args: []string{linux.GuestPath}, Env: p.Env, Cwd: "/", NoNewPrivileges: true,
		Capabilities: capabilities{Bounding: caps, Effective: caps, Permitted: caps},
	}
	return json.Marshal(b)
}
