// Package e2e tests the whole product through its public faces only: the commands of the built
// binary, the HTTP front, and the stock OpenCode client. It has no code of its own besides tests.
package e2e
