// Package driver says what a driver is: the part of Tongs that makes, finds, reaches and removes
// sandboxes on some substrate. Drivers are packages below this one; they all pass the one suite in
// drivertest.
//
// A driver knows nothing about sessions, tools or OpenCode. It gets a Spec, makes the isolated
// place, starts the guest in it as the first process and hands out raw connections to the guest's
// socket. What a sandbox was made from is kept in its own directory, so that a driver made later,
// by another process, finds everything that an earlier one left behind, running or not.
package driver
