// Package peer is what the program conformancepeer serves, as an http.Handler,
// so that tests can also run it within their own process and look at its
// sessions.
package peer
