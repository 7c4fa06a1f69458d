// Package layer turns a layer of an image, a tar archive, into a directory that the kernel's overlay
// takes as one of its layers, and reads what several of them show together.
//
// Archives are hostile. A name never leads out of the directory: ".." is refused, a name that begins with
// a slash is taken from the directory, and the kernel resolves each (openat2(2)), so that a symbolic link
// of the archive leads nowhere else. Bounds hold for the number of entries, for bytes, and for what a
// compressed archive may become. Device nodes are left out (a sandbox has a /dev of its own), and so are
// setuid and setgid bits of files (they have no effect in a sandbox, and outside they would be a danger)
// and all extended attributes but user ones. What an archive says is gone (names that begin with .wh.,
// OCI image-spec, "Image Layer Filesystem Changeset") becomes what an overlay understands.
package layer
