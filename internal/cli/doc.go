// Package cli is the command line of tongs: one file for each command, the configuration they
// share, and the service that `up` and `demo` put together from the other packages.
//
// Every command prints results on standard output and everything else on standard error, ends with
// 0 when it did what it was asked for, 1 when it could not, and 2 when it was asked wrongly.
package cli
