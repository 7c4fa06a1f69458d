package tool

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"strings"

	"github.com/tongs-dev/tongs/sandbox"
)

// maxArgs bounds a call's arguments as JSON: a file body of 32 MiB, escaped.
const maxArgs = 96 << 20

// maxPath is what the kernel takes (PATH_MAX, its NUL included).
const maxPath = 4096

// args reads a call's arguments. Only the parameters a tool asks for are looked
// at; others are ignored, as the built-ins do, and a null is like none.
type args struct {
	tool   string
	values map[string]json.RawMessage
	err    error // the first argument that was wrong
}

func parseArgs(tool string, raw json.RawMessage) (*args, error) {
	a := &args{tool: tool}
	if len(raw) > maxArgs {
		return nil, a.invalid("they are larger than 96 MiB")
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		raw = json.RawMessage("{}")
	}
	if err := json.Unmarshal(raw, &a.values); err != nil || a.values == nil {
		return nil, a.invalid("expected a JSON object, got " + kind(raw))
	}
	return a, nil
}

// invalid words a wrong argument as OpenCode does for its own tools.
func (a *args) invalid(detail string) error {
	return failf(sandbox.CodeInvalidArgument,
		"The %s tool was called with invalid arguments: %s.\nPlease rewrite the input so it satisfies the expected schema.", a.tool, detail)
}

func (a *args) fail(detail string) {
	if a.err == nil {
		a.err = a.invalid(detail)
	}
}

func (a *args) get(name string) (json.RawMessage, bool) {
	raw, ok := a.values[name]
	if !ok || string(bytes.TrimSpace(raw)) == "null" {
		return nil, false
	}
	return raw, true
}

func (a *args) has(name string) bool { _, ok := a.get(name); return ok }

func (a *args) str(name string, required bool) string {
	raw, ok := a.get(name)
	if !ok {
		if required {
			a.fail(`missing key "` + name + `", a string`)
		}
		return ""
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		a.fail(`"` + name + `" must be a string, got ` + kind(raw))
	}
	return s
}

// path reads a string that names a file.
func (a *args) path(name string, required bool) string {
	s := a.str(name, required)
	switch {
	case strings.ContainsRune(s, 0):
		a.fail(`"` + name + `" contains a NUL byte, which no path can`)
	case len(s) >= maxPath:
		a.fail(`"` + name + `" is longer than 4095 bytes, more than a path can be`)
	case required && s == "" && a.err == nil:
		a.err = failf(sandbox.CodeInvalidArgument, "%s is required", name)
	}
	return s
}

// integer reads an optional whole number from min up.
func (a *args) integer(name string, min int64) (n int64, ok bool) {
	raw, ok := a.get(name)
	if !ok {
		return 0, false
	}
	var f float64
	if json.Unmarshal(raw, &f) != nil || math.Trunc(f) != f {
		a.fail(`"` + name + `" must be an integer, got ` + kind(raw))
		return 0, false
	}
	if f < float64(min) || f > 1<<53-1 {
		a.fail(`"` + name + `" must be an integer from ` + itoa(min) + ` to 9007199254740991, got ` + shorten(string(raw), 24))
		return 0, false
	}
	return int64(f), true
}

func (a *args) boolean(name string) bool {
	raw, ok := a.get(name)
	if !ok {
		return false
	}
	var b bool
	if json.Unmarshal(raw, &b) != nil {
		a.fail(`"` + name + `" must be true or false, got ` + kind(raw))
	}
	return b
}

// kind says what a JSON value is, for a message.
func kind(raw json.RawMessage) string {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 || !json.Valid(raw) {
		return "text that is not JSON"
	}
	switch c := raw[0]; {
	case c == '"':
		return "a string"
	case c == '{':
		return "an object"
	case c == '[':
		return "an array"
	case c == 't' || c == 'f':
		return "a boolean"
	case c == 'n':
		return "null"
	case slices.ContainsFunc(raw, func(c byte) bool { return c == '.' || c == 'e' || c == 'E' }):
		return "a fraction"
	}
	return "a number"
}
