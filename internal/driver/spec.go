package driver

import (
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

var (
	validID       = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
	validHostname = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)
)

// reserved are the places that every sandbox gets anew each time it starts; a File below one of them
// would be hidden.
var reserved = []string{"/proc", "/sys", "/dev", "/tmp"}

// CheckID says whether id can name a sandbox.
func CheckID(op, id string) error {
	if !validID.MatchString(id) {
		return Invalid(op, "%q can't be a sandbox's id: 1 to 128 letters, digits, '.', '_' and '-', the first a letter or digit", id)
	}
	return nil
}

// Check says what is wrong with a Spec, or fills in its defaults.
func (s *Spec) Check(op string) error {
	if err := CheckID(op, s.ID); err != nil {
		return err
	}
	if s.Hostname == "" {
		s.Hostname = DefaultHostname
	}
	if !validHostname.MatchString(s.Hostname) {
		return Invalid(op, "hostname %q: 1 to 63 letters, digits and '-'", s.Hostname)
	}
	if s.Network != NetworkNone && s.Network != NetworkEgress {
		return Invalid(op, "network %q is neither \"\" nor %q", s.Network, NetworkEgress)
	}
	if s.Lease == 0 {
		s.Lease = DefaultLease
	}
	s.Limits = s.Limits.WithDefaults()
	if m := s.Limits.MemoryBytes; m > 0 && m < 16<<20 {
		return Invalid(op, "a memory limit of %d bytes is too small for any command: at least 16 MiB", m)
	}
	if c := s.Limits.CPUs; c > 0 && c < 0.01 {
		return Invalid(op, "a limit of %g CPUs is too small: at least 0.01", c)
	}
	if w := s.Limits.CPUWeight; w < 0 || w > 10_000 {
		return Invalid(op, "a weight of %d: 1 to 10,000, or 0 for the default", w)
	}
	for _, b := range s.Binds {
		if !filepath.IsAbs(b.Source) || filepath.Clean(b.Source) != b.Source || b.Source == "/" {
			return Invalid(op, "bind source %q must be a clean absolute path below /", b.Source)
		}
		if err := checkTarget(op, "bind target", b.Target); err != nil {
			return err
		}
	}
	for _, f := range s.Files {
		if err := checkTarget(op, "file", f.Path); err != nil {
			return err
		}
		if len(f.Data) > MaxFileBytes {
			return Invalid(op, "file %s has %d bytes, the most is %d", f.Path, len(f.Data), MaxFileBytes)
		}
		for _, r := range reserved {
			if f.Path == r || strings.HasPrefix(f.Path, r+"/") {
				return Invalid(op, "file %s: %s is made anew at each start, so nothing can be kept there", f.Path, r)
			}
		}
	}
	for _, kv := range s.Env {
		if i := strings.IndexByte(kv, '='); i <= 0 || strings.ContainsRune(kv, 0) {
			return Invalid(op, "environment entry %q is not KEY=value", kv)
		}
	}
	return nil
}

func checkTarget(op, what, p string) error {
	if !path.IsAbs(p) || path.Clean(p) != p || p == "/" || strings.ContainsRune(p, 0) {
		return Invalid(op, "%s %q must be a clean absolute path below /", what, p)
	}
	return nil
}

// String describes the limits for people.
func (l Limits) String() string {
	show := func(n int64, unit string, per int64) string {
		if n < 0 {
			return "no limit"
		}
		return fmt.Sprintf("%d%s", n/per, unit)
	}
	cpus := "all"
	if l.CPUs > 0 {
		cpus = fmt.Sprintf("%g", l.CPUs)
	}
	return fmt.Sprintf("memory %s, pids %s, cpus %s, /tmp %s",
		show(l.MemoryBytes, " MiB", 1<<20), show(l.Pids, "", 1), cpus, show(l.TmpBytes, " MiB", 1<<20))
}
