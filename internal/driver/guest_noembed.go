//go:build !embedguest

package driver

var embedded []byte
