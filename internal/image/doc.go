// Package image makes root file systems for sandboxes.
//
// The host image is a small tree of its own (directories, an /etc made from an allow-list, a home with an
// empty git repository) into which the host's /usr and the toolchains on its PATH are bound read-only. It
// needs no download and has the tools that the machine has. What it exposes: whatever everybody may read
// below /usr and in those toolchains.
//
// A Store keeps other images: from registries, OCI layouts, `docker save` and archives of root file systems.
// Each layer is unpacked once, under the digest of what it holds, and on top of an image's layers comes one
// of ours with what sandboxes need and images lack: the user, a home, /etc/resolv.conf, the certificates
// that the machine trusts. Processes share a store: whoever makes or uses something holds its lock together
// with others, whoever removes something holds it alone.
package image
