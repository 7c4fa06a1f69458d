// Package tooltest holds calls of OpenCode's tools whose answers are compared with those of the tools
// that are built into OpenCode, and what a comparison needs.
package tooltest

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"
)

type (
	m = map[string]any
	f = map[string]string
)

// Case is one call on a project of its own.
type Case struct {
	Name string
	// Files are the project's before the call, by path: "name/" is a directory, and the text
	// "->target" makes a symbolic link.
	Files map[string]string
	Tool  string
	// Args are the call's arguments; {P} in a string stands for the project's path, {W} for the
	// address of Web.
	Args map[string]any
	// Differs says why ours is another answer on purpose. An answer that is the same all the same
	// is an error, too.
	Differs string
	// Check, if there is one, says what an answer that differs has to be.
	Check func(t *testing.T, theirs, ours Outcome)
}

// Ask is a question for permission, as OpenCode shows it to clients.
type Ask struct {
	Permission string         `json:"permission"`
	Patterns   []string       `json:"patterns"`
	Always     []string       `json:"always"`
	Metadata   map[string]any `json:"metadata"`
}

// Outcome is what a call gave: what OpenCode stores of it, what it asked, and the project's files
// afterwards.
type Outcome struct {
	Title       string
	Output      string
	Metadata    map[string]any
	Attachments []map[string]any
	Error       string
	Asks        []Ask
	Files       map[string]string
}

// Cases are all there are.
func Cases() []Case {
	return slices.Concat(ReadCases(), writeCases(), EditCases(), PatchCases(), SearchCases(), BashCases(), FetchCases())
}

// Lay makes the project's files those of the case. What is in .git stays.
func (c Case) Lay(project string) error {
	entries, err := os.ReadDir(project)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != ".git" {
			if err := os.RemoveAll(filepath.Join(project, e.Name())); err != nil {
				return err
			}
		}
	}
	for name, text := range c.Files {
		path := filepath.Join(project, name)
		target, link := strings.CutPrefix(text, "->")
		switch {
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(path, 0o755)
		default:
			if err = os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				break
			}
			if link {
				err = os.Symlink(target, path)
			} else {
				err = os.WriteFile(path, []byte(text), 0o644)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Arguments are the call's, with the project's path and the address of Web in place.
func (c Case) Arguments(project, web string) map[string]any {
	args := map[string]any{}
	for k, v := range c.Args {
		if s, ok := v.(string); ok {
			v = strings.NewReplacer("{P}", project, "{W}", web).Replace(s)
		}
		args[k] = v
	}
	return args
}

// Tree reads all regular files of a project, but those in .git.
func Tree(project string) (map[string]string, error) {
	files := map[string]string{}
	err := filepath.WalkDir(project, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == ".git":
			return filepath.SkipDir
		case !d.Type().IsRegular():
			return nil
		}
		data, err := os.ReadFile(path)
		files[path] = string(data)
		return err
	})
	return files, err
}

var savedTo = regexp.MustCompile(`Full output saved to: \S+`)

// Plain makes outcomes of a tool comparable: as JSON, and without what no two runs share.
func (o Outcome) Plain(tool string) (Outcome, error) {
	files := o.Files // which need not be UTF-8
	o.Files = nil
	text, err := json.Marshal(o)
	if err != nil {
		return Outcome{}, err
	}
	var out Outcome
	if err := json.Unmarshal(text, &out); err != nil {
		return Outcome{}, err
	}
	out.Files = files
	out.Output = savedTo.ReplaceAllString(out.Output, "Full output saved to: FILE")
	if out.Metadata["outputPath"] != nil {
		out.Metadata["outputPath"] = "FILE"
	}
	for i := range out.Attachments {
		for _, key := range []string{"id", "sessionID", "messageID"} {
			delete(out.Attachments[i], key)
		}
	}
	if len(out.Attachments) == 0 {
		out.Attachments = nil
	}
	if out.Error != "" {
		out.Metadata = nil // of a failed call it is what was shown while it ran
	}
	if tool == "glob" || tool == "grep" {
		out.Output = sorted(out.Output, tool)
	}
	return out, nil
}

// Moved is the outcome as it were had all been below another directory.
func (o Outcome) Moved(from, to string) Outcome {
	o.Title, o.Output, o.Error = strings.ReplaceAll(o.Title, from, to), strings.ReplaceAll(o.Output, from, to), strings.ReplaceAll(o.Error, from, to)
	o.Metadata = moved(o.Metadata, from, to).(map[string]any)
	asks := o.Asks
	o.Asks = nil
	for _, a := range asks {
		o.Asks = append(o.Asks, Ask{a.Permission, movedAll(a.Patterns, from, to), movedAll(a.Always, from, to), moved(a.Metadata, from, to).(map[string]any)})
	}
	files := o.Files
	o.Files = map[string]string{}
	for name, text := range files {
		o.Files[strings.Replace(name, from, to, 1)] = text
	}
	return o
}

func movedAll(list []string, from, to string) []string {
	out := slices.Clone(list)
	for i := range out {
		out[i] = strings.ReplaceAll(out[i], from, to)
	}
	return out
}

func moved(v any, from, to string) any {
	switch v := v.(type) {
	case string:
		return strings.ReplaceAll(v, from, to)
	case []any:
		out := slices.Clone(v)
		for i := range out {
			out[i] = moved(out[i], from, to)
		}
		return out
	case map[string]any:
		if v == nil {
			return v
		}
		out := map[string]any{}
		for k, e := range v {
			out[strings.ReplaceAll(k, from, to)] = moved(e, from, to)
		}
		return out
	}
	return v
}

// sorted orders what ripgrep gives in the order its threads come to it.
func sorted(output, tool string) string {
	if tool == "glob" {
		lines := strings.Split(output, "\n")
		n := slices.IndexFunc(lines, func(l string) bool { return !strings.HasPrefix(l, "/") })
		if n < 0 {
			n = len(lines)
		}
		sort.Strings(lines[:n])
		return strings.Join(lines, "\n")
	}
	const note = "\n\n(Results truncated."
	body, tail := output, ""
	if at := strings.LastIndex(output, note); at >= 0 {
		body, tail = output[:at], output[at:]
	}
	parts := strings.Split(body, "\n/")
	for i := range parts {
		parts[i] = strings.TrimRight(parts[i], "\n")
	}
	sort.Strings(parts[1:])
	return strings.Join(parts, "\n/") + tail
}

// String names the case.
func (c Case) String() string { return fmt.Sprintf("%s/%s", c.Tool, c.Name) }
