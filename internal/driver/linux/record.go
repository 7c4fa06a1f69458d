//go:build linux

package linux

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tongs-dev/tongs/internal/driver"
)

// Names in a sandbox's directory.
const (
	recordFile = "sandbox.json" // what it was made from
	labelsFile = "labels.json"  // the labels in recordFile once more: they say whose files these are when that file is lost
	guestFile  = "guest.json"   // which process its guest is; absent after Stop
	logFile    = "guest.log"    // what the last guest that died had said
	upperDir   = "upper"        // what the sandbox has written
	workDir    = "work"         // belongs to the overlay
	lowerDir   = "lower"        // an empty directory to mount on
	rootDir    = "root"         // to mount on; without an overlay: the whole tree
)

// record is what is kept of a sandbox.
type record struct {
	Version int         `json:"version"`
	Created time.Time   `json:"created"`
	Base    uint32      `json:"base"`   // first of its user ids; 0 for a rootless one
	Owner   int         `json:"owner"`  // the user id that has made it
	Copied  bool        `json:"copied"` // the tree is a copy of the image, not an overlay on it
	Spec    driver.Spec `json:"spec"`   // as it was given, with defaults

	within bool // this process has the sandbox's ids, as a task of the driver's
}

const recordVersion = 1

// rootless says whether an ordinary user has made the sandbox: it has one user id only, its owner's, or is
// mapped.
func (r record) rootless() bool { return r.Base == 0 && r.Owner != 0 }

// guestRecord says which process a guest is. A pid is used again sooner or later; with the start time
// and the boot it names one process for ever.
type guestRecord struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // field 22 of /proc/PID/stat
	Boot  string `json:"boot"`  // /proc/sys/kernel/random/boot_id
}

func readRecord(dir string) (record, error) {
	var r record
	data, err := os.ReadFile(filepath.Join(dir, recordFile))
	if err != nil {
		return record{}, err
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return record{}, fmt.Errorf("%s: %w", recordFile, err)
	}
	if r.Version != recordVersion {
		return record{}, fmt.Errorf("%s: version %d is not one that this tongs knows", recordFile, r.Version)
	}
	slot := r.Base / rangeSize
	if !r.rootless() && (r.Base%rangeSize != 0 || slot < firstSlot || slot > lastSlot) {
		return record{}, fmt.Errorf("%s: %d can't be the first of a range of user ids", recordFile, r.Base)
	}
	if err := r.Spec.Image.Map.Check(); err != nil {
		return record{}, fmt.Errorf("%s: %w", recordFile, err)
	}
	return r, nil
}

// readLabels gives what readRecord could not: nil when that is lost too.
func readLabels(dir string) map[string]string {
	var labels map[string]string
	if data, err := os.ReadFile(filepath.Join(dir, labelsFile)); err == nil {
		_ = json.Unmarshal(data, &labels) // damaged like the record
	}
	return labels
}

func readGuest(dir string) (guestRecord, bool, error) {
	var g guestRecord
	data, err := os.ReadFile(filepath.Join(dir, guestFile))
	if errors.Is(err, fs.ErrNotExist) {
		return g, false, nil
	}
	if err != nil {
		return g, false, err
	}
	if err := json.Unmarshal(data, &g); err != nil || g.PID <= 1 {
		return g, false, nil // cut short by a power failure, so from an earlier boot
	}
	return g, true, nil
}

// writeJSON writes a file that nobody reads before more has happened: the record of a sandbox before its
// directory gets its name, the record of a guest before that is let go.
func writeJSON(dir, name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name), append(data, '\n'), 0o600)
}

// bootID names the time since the kernel started.
var bootID = sync.OnceValues(func() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return string(bytes.TrimSpace(data)), err
})

// exiting is the flag of field 9 of /proc/PID/stat that a process has from the moment it begins to end.
const exiting = 0x4

// startTime gives field 22 of /proc/PID/stat, and whether the process is ending or has ended.
func startTime(pid int) (start uint64, ended bool, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, true, err
	}
	// The name, in parentheses, may contain anything.
	rest := data[bytes.LastIndexByte(data, ')')+1:]
	f := strings.Fields(string(rest))
	if len(f) < 20 {
		return 0, true, fmt.Errorf("/proc/%d/stat is cut", pid)
	}
	flags, err := strconv.ParseUint(f[6], 10, 64)
	if err != nil {
		return 0, true, err
	}
	start, err = strconv.ParseUint(f[19], 10, 64)
	return start, f[0] == "Z" || f[0] == "X" || flags&exiting != 0, err
}
