// Package linux is the driver that makes sandboxes from what the Linux kernel has: user, mount, pid,
// network, ipc, uts and cgroup namespaces, an overlay, idmapped mounts and cgroups. It needs no other
// program and no daemon.
//
// A sandbox is a directory below $TONGS_HOME/sandboxes. Its guest is started from a locked thread of
// this process that is thrown away afterwards; it runs from a sealed copy of its binary in memory,
// with a range of 65,536 user ids of its own, in a user namespace made by the first of them. Every
// mount is prepared here, unattached, and handed to the new process, which assembles them (package
// boot). So at no time is there a mount in the host's namespace, and when this process dies half way,
// nothing stays mounted.
//
// What holds a command in, from the outside inwards: user ids of its own that own nothing on the host; no
// capability, and none to be had, by running a program (no_new_privs) or by a user namespace (its sandbox's
// limit on them is 0); its own mounts, processes, network with loopback only, IPC objects, host name and
// session keyring; masked and read-only parts of /proc and /sys; limits on memory, processes and processor
// time; and a filter of system calls (package boot says which) for what namespaces don't cover, such as
// AF_VSOCK, io_uring and keys; and a second fence of Landlock, where the kernel has it, around commands alone. The
// guest is held by all but that, with four capabilities over its own user namespace. docs/security.md has
// what is promised, and drivertest the table of attempts that holds it. It is started from a table of descriptors in which all but the given ones close, so nothing
// that this process has open, as a library in whatever program, reaches a sandbox; and no directory that
// it is given leads up into the host's files.
//
// Without root, all of it is done with what the kernel gives to ordinary users: the new process makes
// its mounts itself, and there are cgroups only of version 2 and where the user was given one. Its user namespace has the user's range of ids, which all
// sandboxes of the user share, or where there is none the user's own id only (package idmap, docs/rootless.md).
//
// A guest outlives the process that made it. Which guest belongs to a sandbox is written down, with
// its start time, before the guest is let go, so that any later process finds it and nobody ever
// signals a stranger.
package linux
