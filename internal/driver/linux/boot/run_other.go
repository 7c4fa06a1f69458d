//go:build !linux

package boot

import (
	"encoding/json"
	"errors"
)

// Fence needs Linux.
func Fence(bool) (func() error, error) { return nil, nil }

// Run needs Linux.
func Run(json.RawMessage) error { return errors.New("boot: only Linux has what a sandbox is made of") }
