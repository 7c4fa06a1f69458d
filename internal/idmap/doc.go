// Package idmap gives an ordinary user's sandboxes ids of their own: the ranges that /etc/subuid and
// /etc/subgid set aside for the user (subuid(5)), mapped into a user namespace by newuidmap(1) and
// newgidmap(1), and work done with those ids by this program, started once more in such a namespace.
//
// All sandboxes of a user share one range. A mount that shifts ids would give each its own, and that only
// root can make on the file systems there are; without it the files of an image belong to the ids with
// which they were unpacked. docs/rootless.md says what follows from that.
package idmap
