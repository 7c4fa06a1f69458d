package doors

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tongs-dev/tongs/internal/gateway"
	"github.com/tongs-dev/tongs/sandbox"
)

// Bounds of a search.
const (
	maxMatches    = 10 // OpenCode's own
	maxMatchText  = 2000
	maxSubmatches = 100
	maxRecord     = 1 << 20 // one line of ripgrep's
	maxFiles      = 50_000
	maxQuery      = 1000
	maxPattern    = 64 << 10
)

// match is one of OpenCode's matches.
type match struct {
	Path           texted     `json:"path"`
	Lines          texted     `json:"lines"`
	LineNumber     int64      `json:"line_number"`
	AbsoluteOffset int64      `json:"absolute_offset"`
	Submatches     []submatch `json:"submatches"`
}

type submatch struct {
	Match texted `json:"match"`
	Start int64  `json:"start"`
	End   int64  `json:"end"`
}

// texted is {"text": …}; ripgrep says {"bytes": …} of what is not UTF-8.
type texted struct {
	Text  string `json:"text"`
	Bytes []byte `json:"bytes,omitempty"`
}

func (t texted) plain() texted {
	if t.Text == "" && len(t.Bytes) > 0 {
		t.Text = strings.ToValidUTF8(string(t.Bytes), "\uFFFD")
	}
	return texted{Text: t.Text}
}

// findText answers GET /find: the first ten matches of a pattern.
func (d *Doors) findText(a *asked) (any, error) {
	pattern, err := oneQuery(a, "pattern")
	if err != nil {
		return nil, err
	}
	if strings.ContainsRune(pattern, 0) || len(pattern) > maxPattern {
		return nil, badInput("the pattern has a NUL byte or is longer than 64 KiB", "search for something shorter")
	}
	if a.box == nil {
		return []match{}, nil
	}
	s := &matches{found: []match{}}
	var stderr limited
	exit, err := a.box.Run(a.ctx, d.spec("rg", "--no-config", "--json", "--hidden", "--no-messages", "--glob=!**/.git/**", "--", pattern, "."), nil, s, &stderr)
	switch {
	case errors.Is(err, errEnough):
		return s.found, nil
	case sandbox.CodeOf(err) == sandbox.CodeCommandNotFound:
		return d.findWithout(a, pattern)
	case err != nil:
		return nil, err
	case exit.Code == 2 && len(s.found) == 0 && stderr.Len() > 0:
		return nil, badInput("the pattern cannot be searched for: "+clip(strings.TrimSpace(stderr.String()), maxMessage), "send a regular expression as ripgrep has them")
	case exit.Code < 0 || exit.Code > 2:
		return nil, &gateway.Error{Status: http.StatusBadGateway, Code: "SEARCH_FAILED", Message: "the search ended with status " + strconv.Itoa(exit.ShellCode()), Hint: "try again"}
	}
	return s.found, nil
}

// errEnough ends a command whose output is no longer needed.
var errEnough = errors.New("there is enough output")

// matches reads ripgrep's JSON lines and stops when there are enough.
type matches struct {
	line  []byte
	found []match
}

func (s *matches) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		at := bytes.IndexByte(p, '\n')
		if at < 0 {
			if len(s.line)+len(p) > maxRecord {
				return 0, errEnough // a line that long is no match that anybody can show
			}
			s.line = append(s.line, p...)
			break
		}
		s.line = append(s.line, p[:at]...)
		p = p[at+1:]
		s.record(s.line)
		s.line = s.line[:0]
		if len(s.found) >= maxMatches {
			return 0, errEnough
		}
	}
	return n, nil
}

func (s *matches) record(line []byte) {
	var r struct {
		Type string `json:"type"`
		Data match  `json:"data"`
	}
	if len(line) > maxRecord || json.Unmarshal(line, &r) != nil || r.Type != "match" {
		return
	}
	m := r.Data
	m.Path, m.Lines = m.Path.plain(), m.Lines.plain()
	m.Path.Text = strings.TrimPrefix(m.Path.Text, "./")
	m.Lines.Text = shorten(m.Lines.Text)
	if len(m.Submatches) > maxSubmatches {
		m.Submatches = m.Submatches[:maxSubmatches]
	}
	for i, sub := range m.Submatches {
		m.Submatches[i].Match = sub.Match.plain()
	}
	if m.Submatches == nil {
		m.Submatches = []submatch{}
	}
	s.found = append(s.found, m)
}

// shorten cuts a line that is too long to show.
func shorten(line string) string {
	if utf8.RuneCountInString(line) <= maxMatchText {
		return line
	}
	return string([]rune(line)[:maxMatchText]) + "..."
}

// limited keeps the beginning of what is written to it.
type limited struct{ bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if room := 8<<10 - l.Len(); room > 0 {
		l.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// findFile answers GET /find/file: names of files and directories like the query.
func (d *Doors) findFile(a *asked) (any, error) {
	q := a.URL.Query()
	kind := q.Get("type")
	if kind == "" && q.Get("dirs") == "false" {
		kind = "file"
	}
	entries, err := d.named(a, kind, 10)
	if err != nil {
		return nil, err
	}
	out := make([]string, len(entries))
	for i, e := range entries {
		out[i] = e.Path
	}
	return out, nil
}

// findLocated answers GET /api/fs/find, which is the same of the second engine.
func (d *Doors) findLocated(a *asked) (any, error) {
	entries, err := d.named(a, a.URL.Query().Get("type"), 50)
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"location": map[string]any{"directory": d.cfg.Directory, "project": map[string]any{"id": "global", "directory": d.cfg.Directory}},
		"data":     entries,
	}, nil
}

// entry is a file or a directory by name.
type entry struct {
	Path string `json:"path"` // a directory's ends in /
	Type string `json:"type"`
}

// named finds the files and directories that a query means best.
func (d *Doors) named(a *asked, kind string, limit int) ([]entry, error) {
	query, err := oneQuery(a, "query")
	if err != nil {
		return nil, err
	}
	if len(query) > maxQuery {
		return nil, badInput("the query is longer than 1,000 bytes", "send a part of a name")
	}
	if s := a.URL.Query().Get("limit"); s != "" {
		if limit, err = strconv.Atoi(s); err != nil || limit < 1 || limit > 200 {
			return nil, badInput("limit is no number from 1 to 200", "see GET /doc")
		}
	}
	if kind != "" && kind != "file" && kind != "directory" {
		return nil, badInput("type is neither file nor directory", "see GET /doc")
	}
	if dir, ok := d.above(a.Request); ok {
		return d.namedAbove(dir, query, kind, limit), nil
	}
	if a.box == nil {
		return []entry{}, nil
	}
	files, err := d.files(a)
	if err != nil {
		return nil, err
	}
	var all []entry
	if kind != "directory" {
		for _, f := range files {
			all = append(all, entry{f, "file"})
		}
	}
	if kind != "file" {
		seen := map[string]bool{}
		for _, f := range files {
			for at := strings.LastIndexByte(f, '/'); at > 0 && !seen[f[:at]]; at = strings.LastIndexByte(f[:at], '/') {
				seen[f[:at]] = true
				all = append(all, entry{f[:at] + "/", "directory"})
			}
		}
	}
	return best(all, query, limit), nil
}

// files lists the project's files that are not ignored, the first maxFiles of them.
func (d *Doors) files(a *asked) ([]string, error) {
	for _, argv := range [][]string{
		{"rg", "--no-config", "--files", "--hidden", "--no-messages", "--null", "--glob=!**/.git/**", "."},
		{"git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"},
		{"find", ".", "-name", ".git", "-prune", "-o", "-type", "f", "-print0"},
	} {
		l := &lines{}
		exit, err := a.box.Run(a.ctx, d.spec(argv...), nil, l, nil)
		switch {
		case errors.Is(err, errEnough):
			a.truncated()
			return l.all, nil
		case sandbox.CodeOf(err) == sandbox.CodeCommandNotFound, err == nil && exit.Code > 2:
			continue
		case err != nil:
			return nil, err
		}
		slices.Sort(l.all)
		return slices.Compact(l.all), nil
	}
	return nil, &gateway.Error{Status: http.StatusNotImplemented, Code: "NO_LISTING", Message: "the sandbox has neither rg nor git nor find", Hint: "install one of them in its image"}
}

// lines collects names that end in NUL.
type lines struct {
	part []byte
	all  []string
}

func (l *lines) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		at := bytes.IndexByte(p, 0)
		if at < 0 {
			if len(l.part)+len(p) > maxPath+1 {
				return 0, errEnough
			}
			l.part = append(l.part, p...)
			break
		}
		name := strings.TrimPrefix(string(l.part)+string(p[:at]), "./")
		l.part, p = l.part[:0], p[at+1:]
		if name != "" && utf8.ValidString(name) {
			l.all = append(l.all, name)
		}
		if len(l.all) >= maxFiles {
			return 0, errEnough
		}
	}
	return n, nil
}

// spec is a command in the project, which ends when the answer's time is over.
func (d *Doors) spec(argv ...string) sandbox.ProcessSpec {
	return sandbox.ProcessSpec{Argv: argv, Dir: d.cfg.Directory, Timeout: d.cfg.Timeout, Env: map[string]string{"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C.UTF-8"}}
}
