package opencode

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// maxConfigFile bounds opencode.json and each file that it names.
const maxConfigFile = 1 << 20

// maxConfig bounds the configuration after expansion. It is handed to OpenCode
// in one environment variable, of which Linux allows 128 KiB.
const maxConfig = 120 << 10

var configVariable = regexp.MustCompile(`\{(env|file):([^{}]+)\}`)

// expander replaces {env:NAME} and {file:path} in the strings of a parsed
// configuration, each once: what comes in is not looked through again.
type expander struct {
	env   map[string]string
	dir   string // of the configuration file
	unset func(path, name string)
}

// value returns v with all its strings expanded. The path names it in messages.
func (e *expander) value(v any, path string) (any, error) {
	switch v := v.(type) {
	case *object:
		for i, m := range v.members {
			x, err := e.value(m.value, join(path, m.name))
			if err != nil {
				return nil, err
			}
			v.members[i].value = x
		}
	case []any:
		for i := range v {
			x, err := e.value(v[i], fmt.Sprintf("%s[%d]", path, i))
			if err != nil {
				return nil, err
			}
			v[i] = x
		}
	case string:
		return e.text(v, path)
	}
	return v, nil
}

func (e *expander) text(s, path string) (string, error) {
	var failed error
	s = configVariable.ReplaceAllStringFunc(s, func(m string) string {
		part := configVariable.FindStringSubmatch(m)
		if part[1] == "env" {
			v, ok := e.env[part[2]]
			if !ok {
				e.unset(path, part[2])
			}
			return v
		}
		text, err := e.file(part[2])
		if err != nil && failed == nil {
			failed = fmt.Errorf("%s: %w", path, err)
		}
		return text
	})
	return s, failed
}

func (e *expander) file(name string) (string, error) {
	if rest, ok := strings.CutPrefix(name, "~/"); ok {
		name = filepath.Join(e.env["HOME"], rest)
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(e.dir, name)
	}
	b, err := readRegular(name)
	return string(bytes.TrimSpace(b)), err
}

// readRegular reads a regular file of at most maxConfigFile bytes.
func readRegular(name string) ([]byte, error) {
	st, err := os.Stat(name) // before opening: a FIFO would block
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, &os.PathError{Op: "read", Path: name, Err: errors.New("not a regular file")}
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxConfigFile+1))
	if err == nil && len(b) > maxConfigFile {
		err = &os.PathError{Op: "read", Path: name, Err: fmt.Errorf("more than %d bytes", maxConfigFile)}
	}
	return b, err
}

// join makes the path of a member.
func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
