// Package files touches files by path as package os does, but never through a
// magic link.
//
// The links in /proc/PID/fd, and /proc/PID/root, cwd and exe, are not text: they
// lead straight to what a process has open, out of any root directory or mount
// namespace, and ".." behind one goes on from there. A program that opens paths
// for somebody it does not trust would, with its own rights, lend out its own
// descriptors. Links that are text (/proc/self is one) are followed as ever.
//
// Paths are resolved by openat2 with RESOLVE_NO_MAGICLINKS (openat2(2), Linux
// 5.6), in one step with the opening, so that nothing can be exchanged in
// between. Where the kernel or a filter has no openat2, the path is walked name
// by name, and no link at all that lies in a proc file system is followed.
//
// Errors are an *fs.PathError or *os.LinkError, as package os's are; one about a
// magic link is [ErrMagicLink] and syscall.ELOOP to errors.Is.
package files
