//go:build linux

package linux

import (
	"math"
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"
)

// maxProcessors is how many an unix.CPUSet has room for.
const maxProcessors = 1024

// showProcessors leaves the calling thread, and what descends from it, no more processors than a limit of cpus comes
// to, rounded up, so that nproc and every program that asks how many there are for it gets that number. What holds
// commands to the limit is their cgroup: a program may ask for other processors, and gets no more time by that. Which
// ones is left to chance, so that sandboxes spread over all.
func showProcessors(cpus float64) error {
	n := int(math.Ceil(cpus))
	if n <= 0 {
		return nil
	}
	var all, some unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return os.NewSyscallError("sched_getaffinity", err)
	}
	var numbers []int
	for i := range maxProcessors {
		if all.IsSet(i) {
			numbers = append(numbers, i)
		}
	}
	if n >= len(numbers) {
		return nil
	}
	first := rand.IntN(len(numbers))
	for i := range n { // neighbours share caches
		some.Set(numbers[(first+i)%len(numbers)])
	}
	return os.NewSyscallError("sched_setaffinity", unix.SchedSetaffinity(0, &some))
}
