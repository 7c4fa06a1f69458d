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
// Without root, all of it is done with what the kernel gives to ordinary users: the new process makes
// its mounts itself, in a user namespace that has one id only, and there are no cgroups.
//
// A guest outlives the process that made it. Which guest belongs to a sandbox is written down, with
// its start time, before the guest is let go, so that any later process finds it and nobody ever
// signals a stranger.
package linux
