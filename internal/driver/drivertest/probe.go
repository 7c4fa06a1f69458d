package drivertest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"sync/atomic"
	"time"
)

// The test binary is also bound into sandboxes, where it does what scripts are too slow for: probeEnv says what.
const (
	probeEnv = "TONGS_DRIVERTEST_PROBE"
	probeArg = "TONGS_DRIVERTEST_PROBE_ARG"
)

// runProbe does what is asked for and gives the status to exit with.
func runProbe(what, argument string) int {
	switch what {
	case "watch":
		watch(argument)
	case "victim":
		n, _ := strconv.Atoi(argument)
		began := time.Now()
		for i := 0; i < n && time.Since(began) < raceTime; i++ {
			if err := exec.Command("true").Run(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
		}
	default:
		fmt.Fprintln(os.Stderr, "no such probe:", what)
		return 1
	}
	return 0
}

// ahead and behind are how far around the newest process the watcher looks.
const ahead, behind = 8, 3

// watch opens the maps of each new process, again and again until it has another program, until its
// standard input ends. What a descriptor of such a file shows is the memory that the process had when it was opened.
func watch(program string) {
	var stop atomic.Bool
	newest := lastPID()
	settled := map[int]bool{os.Getpid(): true}
	seen, reached := map[int]bool{}, map[int]bool{}
	fmt.Println("watching")
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop.Store(true)
	}()
	for !stop.Load() {
		for pid := newest + ahead; pid > newest-behind && pid > 1; pid-- {
			if settled[pid] {
				continue
			}
			maps, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/maps")
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			seen[pid] = true
			newest = max(newest, pid)
			switch {
			case err != nil || len(maps) == 0:
			case bytes.Contains(maps, []byte(program)):
				reached[pid], settled[pid] = true, true
			default:
				settled[pid] = true
			}
		}
		if last := lastPID(); newest+ahead < last {
			newest = last
		}
	}
	fmt.Printf("reached %d of %d\n", len(reached), len(seen))
}

// lastPID is the number of the newest process here.
func lastPID() int {
	data, err := os.ReadFile("/proc/loadavg")
	fields := bytes.Fields(data)
	if err != nil || len(fields) < 5 {
		return os.Getpid()
	}
	n, _ := strconv.Atoi(string(fields[4]))
	return max(n, os.Getpid())
}
