// Package interop proves capnweb against the reference implementation of Cap'n
// Web, which runs on node: its client against our server, our client against
// its server, and its client to its server through a relay of ours.
//
// The package itself holds what those tests need: the reference at exactly the
// versions of js/package-lock.json, installed once per machine, and node
// processes driven by lines of JSON. It is imported by tests only.
package interop
