package drivertest

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

// meminfoTotal is the limit in testMeminfo, in bytes; meminfoHeld what its commands take of it.
const (
	meminfoTotal = 256 << 20
	meminfoHeld  = 100 << 20
)

// testMeminfo reads /proc/meminfo, and asks programs that read it, beside commands that use memory.
func testMeminfo(t *testing.T, s Suite) {
	needLimits(t, s)
	b := newBed(t, s)
	spec := b.spec("lean")
	spec.Limits.MemoryBytes = meminfoTotal
	b.create(t, spec)
	c := b.connect(t, "lean")
	fields := memoryFields(t, c)
	if fields["MemTotal"] != meminfoTotal>>10 || fields["SwapTotal"] != 0 {
		t.Errorf("/proc/meminfo under a limit of 256 MiB: %v", fields)
	}
	if idle := fields["MemAvailable"]; idle < (meminfoTotal-meminfoHeld/2)>>10 || idle > meminfoTotal>>10 {
		t.Errorf("%d kB are available where nothing runs", idle)
	}
	for program, script := range map[string]string{
		"free": "free -b | sed -n 's/^Mem: *\\([0-9]*\\) .*/\\1/p'",
		"node": "node -p 'require(\"os\").totalmem()'",
	} {
		if !bash(t, c, "command -v "+program).Exit.Success() {
			t.Logf("there is no %s here", program)
		} else if got := output(t, c, script); got != strconv.Itoa(meminfoTotal) {
			t.Errorf("%s says that there are %q bytes", program, got)
		}
	}

	// What a command beside it takes shows when another one starts, and no more when it has gone.
	hog, err := c.Start(t.Context(), sandbox.ProcessSpec{Argv: []string{"perl", "-e", "$x = q(x) x " + strconv.Itoa(meminfoHeld) + "; sleep 1000"}, Mode: sandbox.Follow})
	must(t, err)
	awaitMemory(t, c, "a command holds 100 MiB", func(f map[string]int64) bool {
		return f["MemTotal"]-f["MemAvailable"] >= meminfoHeld>>10 && f["AnonPages"] >= meminfoHeld>>10
	})
	must(t, c.Signal(t.Context(), hog.ID, "SIGKILL"))
	awaitMemory(t, c, "the command has gone", func(f map[string]int64) bool {
		return f["MemTotal"]-f["MemAvailable"] < meminfoHeld>>11
	})
	// What a command takes itself shows while it runs.
	for what, take := range map[string]string{
		"MemFree":   "$x = q(x) x $n", // the number is none that perl knows before it runs
		"AnonPages": "$x = q(x) x $n",
		"Shmem":     "open F, q(>), q(/tmp/held); print F q(x) x 1048576 for 1 .. $n >> 20; close F",
	} {
		script := `sub now { open M, q(<), q(/proc/meminfo); local $/; <M> =~ /^` + what + `: +(\d+) kB$/m; $1 }
			$n = shift; $before = now; ` + take + `;
			for (1 .. 600) { abs(now() - $before) >= ` + strconv.Itoa(meminfoHeld*9/10>>10) + ` and print(q(seen)), exit; select undef, undef, undef, 0.05 }`
		if got := output(t, c, "perl -e '"+script+"' "+strconv.Itoa(meminfoHeld)+"; rm -f /tmp/held"); got != "seen" {
			t.Errorf("%s doesn't show what the command takes: %q", what, got)
		}
	}

	must(t, b.Stop(t.Context(), "lean"))
	must(t, b.Start(t.Context(), "lean"))
	if fields := memoryFields(t, b.connect(t, "lean")); fields["MemTotal"] != meminfoTotal>>10 {
		t.Errorf("after a restart there are %d kB", fields["MemTotal"])
	}
}

// awaitMemory reads /proc/meminfo by one command after another until it says what is expected.
func awaitMemory(t *testing.T, c *sandbox.Client, what string, expected func(map[string]int64) bool) {
	t.Helper()
	for late := time.Now().Add(patience); ; {
		fields := memoryFields(t, c)
		if expected(fields) {
			return
		}
		if time.Now().After(late) {
			t.Errorf("%s, and /proc/meminfo says %v", what, fields)
			return
		}
	}
}

// memoryFields gives the numbers in /proc/meminfo by their names.
func memoryFields(t *testing.T, c *sandbox.Client) map[string]int64 {
	t.Helper()
	fields := make(map[string]int64)
	for line := range strings.Lines(output(t, c, "cat /proc/meminfo")) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), ":")
		n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if !ok || err != nil {
			t.Fatalf("/proc/meminfo has the line %q", line)
		}
		fields[name] = n
	}
	return fields
}
