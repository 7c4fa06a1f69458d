package tool

import (
	"regexp"
	"slices"
	"strings"
	"sync"
)

// The patch language of apply_patch, as OpenCode 1.18.33 reads it: lenient
// about what it does not know, strict about finding what it shall change.

type sectionKind string

const (
	addFile    sectionKind = "add"
	deleteFile sectionKind = "delete"
	updateFile sectionKind = "update"
)

// A section is what a patch does to one file.
type section struct {
	kind     sectionKind
	path     string
	moveTo   string  // update: the new path, "" to stay
	contents string  // add
	chunks   []chunk // update
}

// A chunk replaces lines of a file by others.
type chunk struct {
	context string // a line somewhere above it; "" for none
	old     []string
	new     []string
	atEnd   bool // the old lines are the last of the file
}

// maxPatchText bounds a patch as the model sends it.
const maxPatchText = 32 << 20

// patchError says why a patch can't be read or applied, in the built-in's words.
type patchError string

func (e patchError) Error() string { return string(e) }

const errNoMarkers patchError = "Invalid patch format: missing Begin/End markers"

// A heredoc around the patch, as models write it for a shell. Compiled when it is first needed, since this
// is linked into the first process of each sandbox.
var heredoc = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(?:cat\s+)?<<['"]?(\w+)['"]?\s*\n`)
})

func unwrapHeredoc(text string) string {
	head := heredoc().FindStringSubmatchIndex(text)
	if head == nil {
		return text
	}
	word := text[head[2]:head[3]]
	body, ok := strings.CutSuffix(trimRight(text), "\n"+word)
	if !ok || len(body) < head[1] {
		return text
	}
	return body[head[1]:]
}

// parsePatch reads a patch. Lines it can't make sense of are passed over, as
// the built-in does.
func parsePatch(text string) ([]section, error) {
	lines := strings.Split(unwrapHeredoc(trim(text)), "\n")
	is := func(marker string) func(string) bool {
		return func(line string) bool { return trim(line) == marker }
	}
	begin := slices.IndexFunc(lines, is("*** Begin Patch"))
	end := slices.IndexFunc(lines, is("*** End Patch"))
	if begin < 0 || end < 0 || begin >= end {
		return nil, errNoMarkers
	}
	var sections []section
	p := patchParser{lines: lines, at: begin + 1}
	for p.at < end {
		if s, ok := p.section(); ok {
			sections = append(sections, s)
		}
	}
	return sections, nil
}

type patchParser struct {
	lines []string
	at    int
}

func (p *patchParser) more() bool { return p.at < len(p.lines) }

func (p *patchParser) section() (section, bool) {
	line := p.lines[p.at]
	p.at++
	if name, ok := strings.CutPrefix(line, "*** Add File:"); ok && trim(name) != "" {
		return section{kind: addFile, path: trim(name), contents: p.added()}, true
	}
	if name, ok := strings.CutPrefix(line, "*** Delete File:"); ok && trim(name) != "" {
		return section{kind: deleteFile, path: trim(name)}, true
	}
	if name, ok := strings.CutPrefix(line, "*** Update File:"); ok && trim(name) != "" {
		s := section{kind: updateFile, path: trim(name)}
		if p.more() {
			if to, ok := strings.CutPrefix(p.lines[p.at], "*** Move to:"); ok {
				s.moveTo = trim(to)
				p.at++
			}
		}
		s.chunks = p.chunks()
		return s, true
	}
	return section{}, false
}

// added reads the lines of a new file.
func (p *patchParser) added() string {
	var lines []string
	for ; p.more() && !strings.HasPrefix(p.lines[p.at], "***"); p.at++ {
		if body, ok := strings.CutPrefix(p.lines[p.at], "+"); ok {
			lines = append(lines, body)
		}
	}
	return strings.Join(lines, "\n")
}

func (p *patchParser) chunks() []chunk {
	var chunks []chunk
	for p.more() && !strings.HasPrefix(p.lines[p.at], "***") {
		rest, ok := strings.CutPrefix(p.lines[p.at], "@@")
		p.at++
		if ok {
			chunks = append(chunks, p.chunk(trim(rest)))
		}
	}
	return chunks
}

func (p *patchParser) chunk(context string) chunk {
	c := chunk{context: context}
	for ; p.more() && !strings.HasPrefix(p.lines[p.at], "@@"); p.at++ {
		line := p.lines[p.at]
		if line == "*** End of File" {
			c.atEnd = true
			p.at++
			return c
		}
		if strings.HasPrefix(line, "***") {
			return c
		}
		if line == "" {
			continue
		}
		switch body := line[1:]; line[0] {
		case ' ':
			c.old = append(c.old, body)
			c.new = append(c.new, body)
		case '-':
			c.old = append(c.old, body)
		case '+':
			c.new = append(c.new, body)
		}
	}
	return c
}

// A replacement puts new lines in the place of count lines from at.
type replacement struct {
	at, count int
	new       []string
}

// apply gives the text that chunks make of a file's text (without byte order
// mark). It ends in a newline. In a file whose lines all end in CRLF, so do the
// new ones.
func (s section) apply(name, text string) (string, error) {
	crlf := strings.Contains(text, "\r\n") && strings.Count(text, "\n") == strings.Count(text, "\r\n")
	lines := strings.Split(text, "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	reps, err := s.locate(name, lines)
	if err != nil {
		return "", err
	}
	for _, r := range slices.Backward(reps) {
		put := r.new
		if crlf {
			put = slices.Clone(put)
			for i, line := range put {
				put[i] = strings.TrimSuffix(line, "\r") + "\r"
			}
		}
		lines = slices.Replace(lines, r.at, r.at+r.count, put...)
	}
	if len(lines) == 0 || lines[len(lines)-1] != "" {
		lines = append(lines, "")
	}
	return strings.Join(lines, "\n"), nil
}

func (s section) locate(name string, lines []string) ([]replacement, error) {
	var reps []replacement
	from := 0
	seek := newSeeker(lines)
	for _, c := range s.chunks {
		if c.context != "" {
			at := seek.find([]string{c.context}, from, false)
			if at < 0 {
				return nil, patchError("Failed to find context '" + c.context + "' in " + name)
			}
			from = at + 1
		}
		if len(c.old) == 0 {
			at := len(lines)
			if at > 0 && lines[at-1] == "" {
				at--
			}
			reps = append(reps, replacement{at, 0, c.new})
			continue
		}
		old, new := c.old, c.new
		at := seek.find(old, from, c.atEnd)
		if at < 0 && old[len(old)-1] == "" {
			// The empty line a model sends for the file's last newline.
			old = old[:len(old)-1]
			if n := len(new); n > 0 && new[n-1] == "" {
				new = new[:n-1]
			}
			at = seek.find(old, from, c.atEnd)
		}
		if at < 0 {
			return nil, patchError("Failed to find expected lines in " + name + ":\n" + strings.Join(c.old, "\n"))
		}
		reps = append(reps, replacement{at, len(old), new})
		from = at + len(old)
	}
	slices.SortStableFunc(reps, func(a, b replacement) int { return a.at - b.at })
	return reps, nil
}

// seeker finds lines in a file: as they are, without white space at their ends,
// without any around them, and with typographic marks taken for plain ones.
type seeker struct {
	lines []string
	views [4][]string // the lines as each way of comparing sees them, made when needed
	work  int         // lines that may still be looked at
}

// seekWork bounds the lines looked at for one file: seconds of work.
const seekWork = 200 << 20

var loosen = [4]func(string) string{
	func(s string) string { return s },
	trimRight,
	trim,
	func(s string) string { return plainMarks.Replace(trim(s)) },
}

var plainMarks = strings.NewReplacer(
	"\u2018", "'", "\u2019", "'", "\u201a", "'", "\u201b", "'",
	"\u201c", `"`, "\u201d", `"`, "\u201e", `"`, "\u201f", `"`,
	"\u2010", "-", "\u2011", "-", "\u2012", "-", "\u2013", "-", "\u2014", "-", "\u2015", "-",
	"\u2026", "...", "\u00a0", " ",
)

func newSeeker(lines []string) *seeker { return &seeker{lines: lines, work: seekWork} }

// find gives the first place at or after from where the lines stand, with atEnd
// preferably that at the end of the file; -1 for none.
func (s *seeker) find(want []string, from int, atEnd bool) int {
	if len(want) == 0 {
		return -1
	}
	for i, loose := range loosen {
		if s.views[i] == nil {
			s.views[i] = mapLines(s.lines, loose)
		}
		if s.work -= len(s.lines) - from + len(want); s.work < 0 {
			return -1
		}
		if at := findLines(s.views[i], mapLines(want, loose), from, atEnd); at >= 0 {
			return at
		}
	}
	return -1
}

func mapLines(lines []string, f func(string) string) []string {
	out := make([]string, len(lines))
	for i, line := range lines {
		out[i] = f(line)
	}
	return out
}

// findLines is Knuth, Morris and Pratt's search, on lines: linear, whatever the
// file and the patch.
func findLines(have, want []string, from int, atEnd bool) int {
	last := len(have) - len(want)
	if atEnd && last >= from && slices.Equal(have[last:], want) {
		return last
	}
	if from > last {
		return -1
	}
	back := make([]int, len(want))
	for i, k := 1, 0; i < len(want); i++ {
		for k > 0 && want[i] != want[k] {
			k = back[k-1]
		}
		if want[i] == want[k] {
			k++
		}
		back[i] = k
	}
	for i, k := from, 0; i < len(have); i++ {
		for k > 0 && have[i] != want[k] {
			k = back[k-1]
		}
		if have[i] == want[k] {
			k++
		}
		if k == len(want) {
			return i - k + 1
		}
	}
	return -1
}
