//go:build !linux

package boot

import (
	"encoding/json"
	"errors"
)

// Run needs Linux.
func Run(json.RawMessage) (Ready, error) {
	return Ready{}, errors.New("boot: only Linux has what a sandbox is made of")
}
