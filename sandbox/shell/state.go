package shell

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/tongs-dev/tongs/sandbox"
)

// State is what a session passes on to its next command.
type State struct {
	// Dir is the working directory; "" is the project's.
	Dir string `json:"dir,omitempty"`
	// Set is put on top of the sandbox's environment, Unset taken out of it.
	Set   map[string]string `json:"set,omitempty"`
	Unset []string          `json:"unset,omitempty"`

	// Bash is the path of the shell, found when the session was created: its
	// commands may set any PATH.
	Bash string `json:"bash"`
}

// maxState bounds the state and a command's report, in bytes: as much as a program
// can be given.
const maxState = 4 << 20

// apply changes the state by what a command has changed.
func (s *State) apply(c change) {
	if c.dir != "" {
		s.Dir = c.dir
	}
	if s.Set == nil && len(c.set) > 0 {
		s.Set = map[string]string{}
	}
	for name, value := range c.set {
		s.Set[name] = value
		s.Unset = slices.DeleteFunc(s.Unset, func(n string) bool { return n == name })
	}
	for _, name := range c.unset {
		delete(s.Set, name)
		if !slices.Contains(s.Unset, name) {
			s.Unset = append(s.Unset, name)
		}
	}
	slices.Sort(s.Unset)
}

// change is what one command has changed.
type change struct {
	dir   string // "" for none
	set   map[string]string
	unset []string
}

func (c change) empty() bool { return c.dir == "" && len(c.set) == 0 && len(c.unset) == 0 }

// own are the variables that belong to each bash by itself.
func own(name string) bool {
	switch name {
	case "", "_", "SHLVL", "PWD", "BASH_ENV", reportVariable:
		return true
	}
	return false
}

// parseReport reads what a bash has said of itself, at its beginning and at its
// end: values that each end with a NUL byte, first 'D' and the directory with a
// newline, then 'V',
// a name, '=' and a value for each variable; 'B' ends the beginning and 'E' the end.
// ok is false when it did not come to the end.
func parseReport(report []byte) (c change, ok bool) {
	var dirs [2]string
	vars := [2]map[string]string{{}, {}}
	at := 0
	for len(report) > 0 && at < 2 {
		item, rest, whole := bytes.Cut(report, []byte{0})
		if !whole || len(item) == 0 {
			return change{}, false
		}
		report = rest
		text := string(item[1:])
		switch item[0] {
		case 'D':
			dirs[at] = strings.TrimSuffix(text, "\n")
		case 'V':
			name, value, _ := strings.Cut(text, "=")
			vars[at][name] = value
		case 'B', 'E':
			if (item[0] == 'E') != (at == 1) || text != "" {
				return change{}, false
			}
			at++
		default:
			return change{}, false
		}
	}
	if at < 2 {
		return change{}, false
	}
	before, after := vars[0], vars[1]
	if dirs[1] != dirs[0] && strings.HasPrefix(dirs[1], "/") && utf8.ValidString(dirs[1]) {
		c.dir = dirs[1]
	}
	for name, value := range after {
		if old, had := before[name]; (had && old == value) || own(name) || !utf8.ValidString(name) || !utf8.ValidString(value) {
			continue
		}
		if c.set == nil {
			c.set = map[string]string{}
		}
		c.set[name] = value
	}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if _, has := after[name]; !has && !own(name) && utf8.ValidString(name) {
			c.unset = append(c.unset, name)
		}
	}
	return c, true
}

// load reads the session's state as it is now.
func (s *Session) load(ctx context.Context, op string) (State, string, error) {
	data, info, err := s.box.ReadFile(ctx, s.dir+"/state", sandbox.ReadOptions{Length: maxState})
	switch sandbox.CodeOf(err) {
	case "":
	case sandbox.CodeFileNotFound, sandbox.CodeNotDirectory:
		return State{}, "", sandbox.Errf(sandbox.CodeSessionDestroyed, op, "the session "+s.name+" has been deleted", "create it again")
	}
	if err != nil {
		return State{}, "", err
	}
	var st State
	if err := json.Unmarshal(data, &st); err != nil {
		return State{}, "", &sandbox.Error{Code: sandbox.CodeInternal, Op: op, Err: err, Message: "the state of the session " + s.name + " can't be read: " + err.Error(), Hint: "delete the session and create it again"}
	}
	return st, info.Version, nil
}

// tries bounds how often a change is applied anew because another process has
// changed the state meanwhile.
const tries = 20

// update changes the state. edit may be called several times.
func (s *Session) update(ctx context.Context, op string, edit func(*State)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for try := 1; ; try++ {
		st, version, err := s.load(ctx, op)
		if err != nil {
			return err
		}
		edit(&st)
		data, err := json.Marshal(st)
		if err != nil {
			return err
		}
		if len(data) > maxState {
			return sandbox.Errf(sandbox.CodeInvalidArgument, op, "the session's variables take more than 4 MiB", "unset some, or keep them in files")
		}
		_, err = s.box.WriteFile(ctx, s.dir+"/state", data, sandbox.WriteOptions{IfVersion: version, Mode: 0o600})
		if code := sandbox.CodeOf(err); try == tries || code != sandbox.CodeVersionMismatch {
			return err
		}
	}
}
