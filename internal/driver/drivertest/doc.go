// Package drivertest is the suite that every driver has to pass: what driver.Driver promises, the
// limits, the separation of sandboxes from each other and from the host, and what happens when the
// process that made them is killed. All of it goes through the driver's public face and through a
// guest, as the rest of Tongs does.
//
// A driver's tests call Main from TestMain, Run from one test and Bench from one benchmark.
package drivertest
