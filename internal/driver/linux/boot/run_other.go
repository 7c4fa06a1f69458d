//go:build !linux

package boot

import (
	"encoding/json"
	"errors"
)

// Fence needs Linux.
func Fence(bool) func() error { return nil }

// Run needs Linux.
func Run(json.RawMessage) (int, error) {
	return 0, errors.New("boot: only Linux has what a sandbox is made of")
}
