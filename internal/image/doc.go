// Package image makes root file systems for sandboxes.
//
// There is one kind so far, the host image: a small tree of its own (directories, an /etc made from
// an allow-list, a home with an empty git repository) into which the host's /usr and the toolchains
// on its PATH are bound read-only. It needs no download and has the tools that the machine has. What
// it exposes: whatever everybody may read below /usr and in those toolchains.
package image
