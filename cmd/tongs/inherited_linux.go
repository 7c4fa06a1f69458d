package main

import (
	"math"

	"golang.org/x/sys/unix"
)

// keepToOurselves marks every descriptor that this process has inherited, beyond its three streams,
// to be closed by what it executes: a shell's lock or a supervisor's pipe must not live on in a guest,
// which outlives this process, and must not be reachable from a sandbox. (close_range(2); before
// Linux 5.9 there is no such call, and nothing is marked.)
func keepToOurselves() {
	_ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
}
