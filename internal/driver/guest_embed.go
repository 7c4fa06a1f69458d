//go:build embedguest

package driver

import _ "embed"

// The release build puts the guest here first: go build -o internal/driver/tongs-guest ./cmd/tongs-guest
//
//go:embed tongs-guest
var embedded []byte
