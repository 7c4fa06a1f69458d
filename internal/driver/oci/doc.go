// Package oci runs sandboxes by an OCI runtime that is chosen by name: gVisor's runsc, which gives each sandbox
// a kernel of its own, written in Go, and runc or crun, which use the host's as package linux does.
//
// What a sandbox is made of, where it is kept, and how it is found again is package linux's matter; this one
// writes the bundle that a runtime starts the guest from (config.json of the OCI runtime specification), knows
// how each is called, and where to get gVisor. docs/drivers.md says which driver is for whom.
package oci
