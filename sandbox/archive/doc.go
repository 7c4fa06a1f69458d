// Package archive moves trees of files between a sandbox and tar archives: plain,
// compressed with gzip, or with zstd. The work is done on the caller's side; the
// sandbox reads and writes files and knows nothing of archives.
//
//	r, err := archive.Create(ctx, box, "src", archive.CreateOptions{Format: archive.TarZstd})
//	…
//	res, err := archive.Extract(ctx, box, "elsewhere", r, archive.ExtractOptions{})
//
// What is in an archive: files, directories and symbolic links, with permission
// bits, sticky bits and times (to the nanosecond). Not: setuid and setgid, owners,
// extended attributes; FIFOs, sockets and devices are left out. Hard links become
// files of their own, holes zeros.
//
// Neither side is trusted. An archive that names an absolute path, "..", a path
// through a symbolic link, a device or a FIFO, or that has a link leading out of
// its tree, is refused with sandbox.CodeUnsafeArchive; one that is larger than its
// caller's bounds with sandbox.CodeArchiveTooLarge; and what a sandbox sends as a
// tree is checked in the same way before it goes into an archive.
package archive
