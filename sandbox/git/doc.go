// Package git checks repositories out inside a sandbox, with the sandbox's own git.
//
// It runs in the caller's process and does all by the sandbox's client: git gets
// its arguments as a list, never through a shell; it asks nobody for a password;
// it runs no hook and no credential helper; and a checkout is there as a whole or
// not at all.
package git
