package tool

import (
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// Unified diffs, as diff -u and git write them (GNU diffutils manual, "Detailed
// Description of Unified Format"; git-diff(1), "Generating patch text").

// A filePatch is what a unified diff does to one file.
type filePatch struct {
	old, new string // paths; "" is /dev/null
	renamed  bool   // git says that new is old under another name
	made     bool   // git says so
	deleted  bool   // git says so
	mode     fs.FileMode
	hunks    []patchHunk
}

// A patchHunk replaces lines. Each has its newline, or none at the file's end.
type patchHunk struct {
	at       int // the first old line, from 1; with no old lines, the one before
	old, new []string
}

// maxHunks bounds the hunks of one patch.
const maxHunks = 1_000_000

type diffParser struct {
	lines []string // each with its newline
	at    int
	files []filePatch
	hunks int
}

// parseUnified reads a unified diff. What stands before, between and after the
// files is passed over, as patch does.
func parseUnified(text string) ([]filePatch, error) {
	p := diffParser{lines: splitLines(text)}
	for p.at < len(p.lines) {
		line := p.lines[p.at]
		var err error
		switch {
		case strings.HasPrefix(line, "diff --git "):
			err = p.git()
		case strings.HasPrefix(line, "--- ") && p.peek(1, "+++ "):
			err = p.file(filePatch{})
		case strings.HasPrefix(line, "@@ -"):
			err = p.errorf("a hunk without the names of its file")
		default:
			p.at++
		}
		if err != nil {
			return nil, err
		}
	}
	return p.files, nil
}

func (p *diffParser) errorf(format string, args ...any) error {
	return patchError(fmt.Sprintf("line %d: ", p.at+1) + fmt.Sprintf(format, args...))
}

func (p *diffParser) peek(n int, prefix string) bool {
	return p.at+n < len(p.lines) && strings.HasPrefix(p.lines[p.at+n], prefix)
}

// git reads the headers of git's, and the file that follows.
func (p *diffParser) git() error {
	var f filePatch
	names := strings.TrimRight(p.lines[p.at][len("diff --git "):], "\r\n")
	for p.at++; p.at < len(p.lines); p.at++ {
		line := strings.TrimRight(p.lines[p.at], "\r\n")
		key := func(name string) (value string, ok bool) {
			value, ok = strings.CutPrefix(line, name+" ")
			return value, ok
		}
		switch {
		case strings.HasPrefix(line, "--- "):
			return p.file(f)
		case strings.HasPrefix(line, "diff --git "):
			return p.headersOnly(f, names)
		case strings.HasPrefix(line, "GIT binary patch"), strings.HasPrefix(line, "Binary files "):
			return p.errorf("a change of a binary file can't be carried out")
		case strings.HasPrefix(line, "copy from "):
			return p.errorf("a copy can't be carried out")
		}
		var ok bool
		var value string
		if value, ok = key("rename from"); ok {
			f.old, f.renamed = unquote(value), true
		} else if value, ok = key("rename to"); ok {
			f.new, f.renamed = unquote(value), true
		} else if value, ok = key("deleted file mode"); ok {
			f.deleted = true
		} else if value, ok = key("new file mode"); ok {
			f.made = true
		} else {
			value, ok = key("new mode")
		}
		if ok && len(value) == 6 && strings.HasPrefix(value, "100") {
			n, err := strconv.ParseUint(value[3:], 8, 32)
			if err != nil {
				return p.errorf("%q is no mode", value)
			}
			f.mode = fs.FileMode(n)
		} else if ok && (value == "120000" || value == "160000") {
			return p.errorf("a symbolic link or a submodule can't be made by a patch")
		}
		if !ok && line != "" && !strings.HasPrefix(line, "index ") && !strings.HasPrefix(line, "old mode ") &&
			!strings.HasPrefix(line, "similarity index ") && !strings.HasPrefix(line, "dissimilarity index ") {
			break // a remark: the headers are over
		}
	}
	return p.headersOnly(f, names)
}

// headersOnly keeps a file of whose content nothing changes.
func (p *diffParser) headersOnly(f filePatch, names string) error {
	switch {
	case f.renamed && f.old != "" && f.new != "":
		// git's paths in these lines have no a/ and b/.
		f.old, f.new = "a/"+f.old, "b/"+f.new
	default:
		// An empty file that comes or goes, or a mode: both names are the same.
		a, b, ok := strings.Cut(names, " b/")
		if strings.HasPrefix(names, `"`) {
			a, b, ok = strings.Cut(names, ` "b/`)
			a, b = unquote(a), unquote(`"`+b)
		}
		if !ok || !strings.HasPrefix(a, "a/") || a[2:] != b {
			return p.errorf("the names in %q can't be told apart", shorten(names, 200))
		}
		f.old, f.new = a, "b/"+b
		if f.made {
			f.old = ""
		}
		if f.deleted {
			f.new = ""
		}
	}
	p.files = append(p.files, f)
	return nil
}

// file reads the two names and the hunks.
func (p *diffParser) file(f filePatch) error {
	f.old = diffName(p.lines[p.at][4:])
	if !p.peek(1, "+++ ") {
		return p.errorf("--- without +++ after it")
	}
	f.new = diffName(p.lines[p.at+1][4:])
	if f.old == "" && f.new == "" {
		return p.errorf("both names are /dev/null")
	}
	p.at += 2
	for p.peek(0, "@@ -") {
		if p.hunks++; p.hunks > maxHunks {
			return p.errorf("more than %d hunks", maxHunks)
		}
		h, err := p.hunk()
		if err != nil {
			return err
		}
		f.hunks = append(f.hunks, h)
	}
	if len(f.hunks) == 0 {
		return p.errorf("a file without hunks")
	}
	p.files = append(p.files, f)
	return nil
}

// hunk reads one hunk, by the numbers of lines that its head announces.
func (p *diffParser) hunk() (h patchHunk, err error) {
	var oldLines, newLines int
	head := p.lines[p.at]
	if h.at, oldLines, newLines, err = parseHunkHead(head); err != nil {
		return h, p.errorf("%q is no head of a hunk", shorten(strings.TrimRight(head, "\r\n"), 200))
	}
	for p.at++; len(h.old) < oldLines || len(h.new) < newLines; p.at++ {
		if p.at == len(p.lines) {
			return h, p.errorf("the patch ends within a hunk")
		}
		line := p.lines[p.at]
		if !strings.HasSuffix(line, "\n") {
			line += "\n" // the patch's own last line
		}
		switch mark, body := line[0], line[1:]; mark {
		case ' ', '\n', '\r':
			if mark != ' ' {
				body = line // mail programs take the blank away from an empty line
			}
			h.old, h.new = append(h.old, body), append(h.new, body)
		case '-':
			h.old = append(h.old, body)
		case '+':
			h.new = append(h.new, body)
		case '\\':
			h.dropNewline(p.lines[p.at-1])
		default:
			return h, p.errorf("a line of a hunk begins with %q", mark)
		}
		if len(h.old) > oldLines || len(h.new) > newLines {
			return h, p.errorf("the hunk has more lines than its head says")
		}
	}
	if p.peek(0, `\`) {
		h.dropNewline(p.lines[p.at-1])
		p.at++
	}
	return h, nil
}

// dropNewline carries out "\ No newline at end of file" for the line before it.
func (h *patchHunk) dropNewline(before string) {
	cut := func(lines []string) {
		if n := len(lines); n > 0 {
			lines[n-1] = strings.TrimSuffix(lines[n-1], "\n")
		}
	}
	if before[0] != '+' {
		cut(h.old)
	}
	if before[0] != '-' {
		cut(h.new)
	}
}

// parseHunkHead reads "@@ -1,2 +3,4 @@".
func parseHunkHead(head string) (at, oldLines, newLines int, err error) {
	fields := strings.Fields(head)
	if len(fields) < 4 || fields[0] != "@@" || fields[3] != "@@" || fields[2][0] != '+' {
		return 0, 0, 0, strconv.ErrSyntax
	}
	side := func(s string) (start, count int) {
		first, rest, ok := strings.Cut(s[1:], ",")
		start, err1 := strconv.Atoi(first)
		count = 1
		if ok {
			var err2 error
			if count, err2 = strconv.Atoi(rest); err2 != nil {
				err = err2
			}
		}
		if err1 != nil || start < 0 || count < 0 || count > 1<<30 || start > 1<<30 {
			err = strconv.ErrSyntax
		}
		return start, count
	}
	at, oldLines = side(fields[1])
	_, newLines = side(fields[2])
	return at, oldLines, newLines, err
}

// diffName reads a file's name behind --- or +++: up to a tab, behind which diff
// writes the time; /dev/null is "".
func diffName(s string) string {
	if s = strings.TrimRight(s, "\t\r\n"); !strings.HasPrefix(s, `"`) {
		s, _, _ = strings.Cut(s, "\t")
		s = strings.TrimRight(s, " ")
	}
	if s == "/dev/null" {
		return ""
	}
	return unquote(s)
}

// unquote reads a name that git quoted, as in C.
func unquote(s string) string {
	if !strings.HasPrefix(s, `"`) || !strings.HasSuffix(s, `"`) {
		return s
	}
	if name, err := strconv.Unquote(s); err == nil {
		return name
	}
	return s
}

// apply gives what the hunks make of a text. A hunk goes where its old lines
// stand, every byte the same, as near as possible to where it says.
func (f *filePatch) apply(name, text string) (string, error) {
	lines := splitLines(text)
	var b strings.Builder
	b.Grow(len(text))
	from, shift := 0, 0
	for i, h := range f.hunks {
		want := max(h.at-1, 0)
		if len(h.old) == 0 {
			want = h.at
		}
		at := nearestLines(lines, h.old, from, want+shift)
		if at < 0 {
			return "", patchError(fmt.Sprintf("hunk %d of %s does not fit: the lines it replaces do not stand there", i+1, name))
		}
		for _, line := range lines[from:at] {
			b.WriteString(line)
		}
		for _, line := range h.new {
			b.WriteString(line)
		}
		from, shift = at+len(h.old), at-want
	}
	for _, line := range lines[from:] {
		b.WriteString(line)
	}
	return b.String(), nil
}

// nearestLines gives the place nearest to at, and not before from, where want
// stands in have; -1 for none. It is linear, as findLines is.
func nearestLines(have, want []string, from, at int) int {
	if len(want) == 0 {
		if at < from || at > len(have) {
			return -1
		}
		return at
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
	best := -1
	for i, k := from, 0; i < len(have); i++ {
		for k > 0 && (k == len(want) || have[i] != want[k]) {
			k = back[k-1]
		}
		if have[i] == want[k] {
			k++
		}
		if k < len(want) {
			continue
		}
		here := i - k + 1
		if best < 0 || max(here-at, at-here) < max(best-at, at-best) {
			best = here
		}
		if here >= at {
			break
		}
	}
	return best
}
