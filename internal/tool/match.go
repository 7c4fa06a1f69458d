package tool

import (
	"context"
	"iter"
	"math"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/tongs-dev/tongs/sandbox"
)

// How edit finds what to replace: the text as it was given, then eight ways to
// forgive a model small mistakes in copying it. Each gives the places it finds
// as the exact text that stands there. The ways, their order and thresholds
// are those of OpenCode 1.18.33.

const (
	// matchWork bounds what the forgiving ways may compare, in lines and in
	// cells of the similarity table: about a second of work.
	matchWork = 100 << 20
	// similar is how much of the lines between two anchors has to agree.
	similar = 0.65
)

// matcher looks for old in the content of a file.
type matcher struct {
	ctx     context.Context
	content string
	old     string
	lines   []string // of content, without their "\n"
	starts  []int    // where each line begins in content
	oldRows []string // lines of old, without their "\n"
	work    int
}

func newMatcher(ctx context.Context, content, old string) *matcher {
	m := &matcher{ctx: ctx, content: content, old: old, work: matchWork}
	m.lines = strings.Split(content, "\n")
	m.oldRows = strings.Split(old, "\n")
	m.starts = make([]int, len(m.lines))
	at := 0
	for i, line := range m.lines {
		m.starts[i] = at
		at += len(line) + 1
	}
	return m
}

// spend pays for work; false means that there is none left, or no time.
func (m *matcher) spend(n int) bool {
	before := m.work
	m.work -= n
	if before>>16 != m.work>>16 && m.ctx.Err() != nil {
		m.work = -1
	}
	return m.work >= 0
}

// span gives the lines from first to last, as they stand in the content.
func (m *matcher) span(first, last int) string {
	return m.content[m.starts[first] : m.starts[last]+len(m.lines[last])]
}

func (m *matcher) finders() []iter.Seq[string] {
	return []iter.Seq[string]{
		m.exact, m.trimmedLines, m.blockAnchors, m.whitespace, m.indentation,
		m.escapes, m.trimmedEnds, m.contextAnchors, m.exact,
	}
}

// replace gives the content with old replaced by new: at its one place, or at
// all. The errors are the built-in's.
func (m *matcher) replace(new string, all bool) (string, error) {
	found := false
	for _, find := range m.finders() {
		for place := range find {
			if place == "" { // blanks match everywhere, and stand for nothing
				found = true
				continue
			}
			at := strings.Index(m.content, place)
			if at < 0 {
				continue
			}
			found = true
			if m.disproportionate(place) {
				return "", failf(sandbox.CodeInvalidArgument, "Refusing replacement because the matched span is much larger than oldString. Re-read the file and provide the full exact oldString for the intended replacement.")
			}
			if all {
				return strings.ReplaceAll(m.content, place, new), nil
			}
			if strings.LastIndex(m.content, place) != at {
				continue
			}
			return m.content[:at] + new + m.content[at+len(place):], nil
		}
		if err := m.ctx.Err(); err != nil {
			return "", err
		}
	}
	if found {
		return "", failf(sandbox.CodeInvalidArgument, "Found multiple matches for oldString. Provide more surrounding context to make the match unique.")
	}
	return "", failf(sandbox.CodeInvalidArgument, "Could not find oldString in the file. It must match exactly, including whitespace, indentation, and line endings.")
}

// disproportionate tells when a forgiving match took in far more than was
// asked for.
func (m *matcher) disproportionate(place string) bool {
	rows := len(m.oldRows)
	if strings.Count(place, "\n")+1 >= max(rows+3, rows*2) {
		return true
	}
	if rows == 1 {
		return false
	}
	asked := utf16Len(trim(m.old))
	return utf16Len(trim(place)) > max(asked+500, asked*4)
}

func (m *matcher) exact(yield func(string) bool) { yield(m.old) }

// wanted gives the lines of old without an empty one at the end.
func (m *matcher) wanted() []string {
	rows := m.oldRows
	if rows[len(rows)-1] == "" {
		rows = rows[:len(rows)-1]
	}
	return rows
}

func trimAll(lines []string) []string {
	out := make([]string, len(lines))
	for i, line := range lines {
		out[i] = trim(line)
	}
	return out
}

// trimmedLines compares lines without the white space around them.
func (m *matcher) trimmedLines(yield func(string) bool) {
	want, have := trimAll(m.wanted()), trimAll(m.lines)
	if len(want) == 0 {
		return
	}
	for i := 0; i+len(want) <= len(have); i++ {
		n := 0
		for n < len(want) && have[i+n] == want[n] {
			n++
		}
		if !m.spend(n + 1) {
			return
		}
		if n == len(want) && !yield(m.span(i, i+n-1)) {
			return
		}
	}
}

// block is a run of lines between two anchors.
type block struct{ first, last int }

// anchored finds, for each line equal to the first wanted one, the nearest line
// at least two further down that equals the last.
func (m *matcher) anchored(have []string, first, last string) iter.Seq[block] {
	return func(yield func(block) bool) {
		var ends []int
		for i, line := range have {
			if line == last {
				ends = append(ends, i)
			}
		}
		e := 0
		for i, line := range have {
			if line != first {
				continue
			}
			for e < len(ends) && ends[e] < i+2 {
				e++
			}
			if e == len(ends) || !m.spend(1) || !yield(block{i, ends[e]}) {
				return
			}
		}
	}
}

// blockAnchors takes a block whose first and last lines agree, whose length is
// within a quarter, and whose lines between are similar enough; of several the
// most similar one.
func (m *matcher) blockAnchors(yield func(string) bool) {
	if len(m.oldRows) < 3 {
		return
	}
	want, have := trimAll(m.wanted()), trimAll(m.lines)
	size := len(want)
	slack := max(1, size/4)
	var found []block
	for b := range m.anchored(have, want[0], want[size-1]) {
		if got := b.last - b.first + 1; got-size <= slack && size-got <= slack {
			found = append(found, b)
		}
	}
	best, score := block{}, -1.0
	for _, b := range found {
		if s := m.similarity(want, have[b.first:b.last+1], len(found) == 1); s > score {
			best, score = b, s
		}
	}
	if score >= similar {
		yield(m.span(best.first, best.last))
	}
}

// similarity is how much the lines between the anchors agree on average, 0 to 1.
// For a single candidate it is enough to pass the threshold, and two empty lines
// count for nothing, as with the built-in.
func (m *matcher) similarity(want, have []string, enough bool) float64 {
	inner := min(len(want)-2, len(have)-2)
	if inner <= 0 {
		return 1
	}
	sum := 0.0
	for i := 1; i <= inner; i++ {
		a, b := utf16.Encode([]rune(have[i])), utf16.Encode([]rune(want[i]))
		longest := max(len(a), len(b))
		if longest == 0 {
			continue
		}
		d := m.distance(a, b)
		if d < 0 {
			return -1
		}
		sum += (1 - float64(d)/float64(longest)) / float64(inner)
		if enough && sum >= similar {
			break
		}
	}
	return sum
}

// distance is Levenshtein's; -1 when there is no work left for it.
func (m *matcher) distance(a, b []uint16) int {
	if slices.Equal(a, b) {
		return 0
	}
	if len(a) == 0 || len(b) == 0 {
		return max(len(a), len(b))
	}
	if len(a) > math.MaxInt/len(b)-1 || !m.spend(len(a)*len(b)) {
		m.work = -1
		return -1
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i, ca := range a {
		diagonal := row[0]
		row[0] = i + 1
		for j, cb := range b {
			cost := diagonal
			if ca != cb {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}

// squeeze makes each run of white space one blank.
func squeeze(s string) string {
	return strings.Join(strings.FieldsFunc(s, isSpace), " ")
}

// whitespace takes white space of any length and kind for the same: within one
// line, then over as many lines as old has.
func (m *matcher) whitespace(yield func(string) bool) {
	words := strings.FieldsFunc(m.old, isSpace)
	want := strings.Join(words, " ")
	rows := len(m.oldRows)
	flat := make([]string, len(m.lines))
	for i, line := range m.lines {
		flat[i] = squeeze(line)
		if !m.spend(1 + len(line)/64) {
			return
		}
		switch {
		case flat[i] == want:
			if !yield(line) {
				return
			}
		case len(words) > 0 && strings.Contains(flat[i], want):
			if place, ok := m.findWords(line, words); ok && !yield(place) {
				return
			}
		}
	}
	if rows < 2 {
		return
	}
	for i := 0; i+rows <= len(flat); i++ {
		n, ok := m.sameFlat(flat[i:i+rows], want)
		if !m.spend(n + 1) {
			return
		}
		if ok && !yield(m.span(i, i+rows-1)) {
			return
		}
	}
}

// sameFlat compares lines, squeezed and put together, with want, and tells how
// many it had to look at.
func (m *matcher) sameFlat(flat []string, want string) (looked int, same bool) {
	rest, first := want, true
	for n, line := range flat {
		if line == "" {
			continue
		}
		if !first {
			var ok bool
			if rest, ok = strings.CutPrefix(rest, " "); !ok {
				return n + 1, false
			}
		}
		var ok bool
		if rest, ok = strings.CutPrefix(rest, line); !ok {
			return n + 1, false
		}
		first = false
	}
	return len(flat), rest == ""
}

// findWords finds words that follow each other with white space between them,
// and gives the text from the first to the last.
func (m *matcher) findWords(line string, words []string) (string, bool) {
	for from := 0; ; {
		at := strings.Index(line[from:], words[0])
		if at < 0 {
			return "", false
		}
		start := from + at
		end := start + len(words[0])
		ok := true
		for _, word := range words[1:] {
			if !m.spend(1) {
				return "", false
			}
			gap := indentLen(line[end:])
			if gap == 0 || !strings.HasPrefix(line[end+gap:], word) {
				ok = false
				break
			}
			end += gap + len(word)
		}
		if ok {
			return line[start:end], true
		}
		_, size := utf8.DecodeRuneInString(line[start:])
		from = start + size
	}
}

// outdent takes the indentation shared by all lines away.
func outdent(lines []string) []string {
	shared := -1
	for _, line := range lines {
		if trim(line) != "" {
			if n := indentLen(line); shared < 0 || n < shared {
				shared = n
			}
		}
	}
	if shared <= 0 {
		return lines
	}
	out := make([]string, len(lines))
	for i, line := range lines {
		if out[i] = line; trim(line) != "" {
			out[i] = line[shared:]
		}
	}
	return out
}

// indentation compares blocks after taking away what they are indented by.
func (m *matcher) indentation(yield func(string) bool) {
	want := outdent(m.oldRows)
	rows := len(want)
	have := trimAll(m.lines)
	key := trimAll(want)
	for i := 0; i+rows <= len(m.lines); i++ {
		// Lines that differ without their white space differ with it.
		n := 0
		for n < rows && have[i+n] == key[n] {
			n++
		}
		if !m.spend(n + 1) {
			return
		}
		if n < rows || !m.spend(2*rows) {
			continue
		}
		if slices.Equal(outdent(m.lines[i:i+rows]), want) && !yield(m.span(i, i+rows-1)) {
			return
		}
	}
}

var unescaper = strings.NewReplacer(
	`\n`, "\n", `\t`, "\t", `\r`, "\r", `\'`, "'", `\"`, `"`, "\\`", "`", `\\`, `\`, "\\\n", "\n", `\$`, "$")

// escapes reads \n, \t, quotes and the like in old as what they stand for.
func (m *matcher) escapes(yield func(string) bool) {
	want := unescaper.Replace(m.old)
	if strings.Contains(m.content, want) && !yield(want) {
		return
	}
	rows := strings.Count(want, "\n") + 1
	for i := 0; i+rows <= len(m.lines); i++ {
		text := m.span(i, i+rows-1)
		// What it stands for is never longer than the text, nor half as short.
		if len(text) < len(want) || len(text) > 2*len(want) {
			if !m.spend(1) {
				return
			}
			continue
		}
		if !m.spend(1 + len(text)/16) {
			return
		}
		if unescaper.Replace(text) == want && !yield(text) {
			return
		}
	}
}

// trimmedEnds leaves out the white space around old as a whole.
func (m *matcher) trimmedEnds(yield func(string) bool) {
	want := trim(m.old)
	if want == m.old {
		return
	}
	if strings.Contains(m.content, want) && !yield(want) {
		return
	}
	rows := len(m.oldRows)
	for i := 0; i+rows <= len(m.lines); i++ {
		text := m.span(i, i+rows-1)
		if !m.spend(1 + len(text)/64) {
			return
		}
		if len(text) >= len(want) && trim(text) == want && !yield(text) {
			return
		}
	}
}

// contextAnchors takes a block whose first and last lines agree, of the same
// length, with at least half of the lines between equal.
func (m *matcher) contextAnchors(yield func(string) bool) {
	if len(m.oldRows) < 3 {
		return
	}
	want, have := trimAll(m.wanted()), trimAll(m.lines)
	size := len(want)
	for b := range m.anchored(have, want[0], want[size-1]) {
		if b.last-b.first+1 != size {
			continue
		}
		same, of := 0, 0
		for i := 1; i < size-1; i++ {
			if have[b.first+i] == "" && want[i] == "" {
				continue
			}
			of++
			if have[b.first+i] == want[i] {
				same++
			}
		}
		if !m.spend(size) {
			return
		}
		if (of == 0 || 2*same >= of) && !yield(m.span(b.first, b.last)) {
			return
		}
	}
}
