//go:build linux

package linux

import (
	"slices"
	"strings"
)

// NoLimits gives the reason why this process can't limit commands, or "".
func NoLimits() string {
	groups, err := findCgroups("")
	if err != nil {
		return err.Error()
	}
	if have := groups.controllers(); !slices.Contains(have, "memory") || !slices.Contains(have, "pids") {
		return "the control groups here have controllers of " + strings.Join(have, ", ") + " only"
	}
	return ""
}
