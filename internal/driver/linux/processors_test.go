//go:build linux

package linux_test

import (
	"os/exec"
	"runtime"
	"strconv"
	"testing"

	"github.com/tongs-dev/tongs/internal/driver"
)

// TestProcessors asks several programs how many processors there are for them.
func TestProcessors(t *testing.T) {
	t.Parallel()
	if runtime.NumCPU() < 2 {
		t.Skip("this machine has one processor")
	}
	d := newDriver(t, nil)
	all := strconv.Itoa(runtime.NumCPU())
	for id, c := range map[string]struct {
		cpus float64
		want string
	}{"half": {0.5, "1"}, "one": {1, "1"}, "more": {1.5, "2"}, "toomany": {1000, all}, "nolimit": {0, all}} {
		create(t, d, driver.Spec{ID: id, Limits: driver.Limits{CPUs: c.cpus}})
		for program, script := range map[string]string{
			"nproc":   "nproc",
			"python3": "python3 -c 'import os; print(len(os.sched_getaffinity(0)))'",
			"node":    "node -e 'console.log(os.availableParallelism())'",
		} {
			if _, err := exec.LookPath(program); err != nil {
				continue
			}
			if got := sh(t, d, id, script); got != c.want {
				t.Errorf("%s with %g of %s processors: %q, want %s", program, c.cpus, all, got, c.want)
			}
		}
	}
}
