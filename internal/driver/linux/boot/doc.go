// Package boot is the driver's half inside a sandbox: what its first process does before it serves.
//
// The process starts in new namespaces of its own, still with the host's files in view (its root is /proc, and its
// working directory the host's root, where it goes first), and with the
// listening end of a channel to the driver. Over the channel come the sandbox's mounts, as descriptors
// that the driver has prepared with rights that nobody inside has, and a Plan. Run assembles them,
// mounts a fresh /proc, /sys, /tmp, /dev/pts, /dev/shm and /dev/mqueue, forbids user
// namespaces below its own, changes root, drops the host's files and every capability that the guest
// doesn't need, puts a filter of system calls on itself and all its descendants, and answers. (Fence is
// for commands alone, so the guest asks for it.) If the driver goes away
// before it has sent its message, Run fails and the process is expected to exit; nothing is left then,
// because the driver's mounts were never attached anywhere.
//
// Where an OCI runtime starts the process (package oci), it is in its place already, and the Plan says what is left
// to do: all of the above but the mounts on the host's kernel, and on a kernel of its own what makes it reachable.
//
// It is linked into the guest, so it imports next to nothing.
package boot
