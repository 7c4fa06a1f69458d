// Package tongs is the root of the module. It holds the version that the programs report, and the
// tests that keep the rules of the code base: which package may import which, and that each one
// says what it is for. The programs are in cmd, the libraries that stand on their own are capnweb
// and sandbox.
package tongs

// Version is what `tongs version` prints. The Makefile sets it from git; a plain `go build` leaves
// "dev".
var Version = "dev"
