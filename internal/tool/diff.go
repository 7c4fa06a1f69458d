package tool

import (
	"strconv"
	"strings"
)

// Differences are worked out and written as the npm package "diff" does with
// four lines of context, because OpenCode's clients parse them with it.

const (
	// maxEdits bounds the search for the shortest script: its time and memory
	// grow with the square. Beyond, what differs is one block taken out and one
	// put in.
	maxEdits = 2000
	// maxPatch bounds the text of a patch that goes to clients as metadata; it
	// is cut between hunks.
	maxPatch     = 512 << 10
	contextLines = 4
)

// edit kinds of a script, in runs of whole lines.
const (
	keep = iota
	insert
	remove
)

type editRun struct {
	kind  int
	count int
}

// lineDiff is the difference of two texts by lines (a line includes its "\n").
type lineDiff struct {
	old, new []string
	runs     []editRun
}

func diffLines(old, new string) lineDiff {
	d := lineDiff{old: splitLines(old), new: splitLines(new)}
	ids := make(map[string]int32, len(d.old)+len(d.new))
	number := func(lines []string) []int32 {
		out := make([]int32, len(lines))
		for i, line := range lines {
			id, ok := ids[line]
			if !ok {
				id = int32(len(ids))
				ids[line] = id
			}
			out[i] = id
		}
		return out
	}
	a, b := number(d.old), number(d.new)
	var ok bool
	if d.runs, ok = shortestScript(a, b); !ok {
		d.runs = coarseScript(a, b)
	}
	return d
}

// splitLines cuts after each "\n"; a text that ends in one has no line after it.
func splitLines(s string) []string {
	if s == "" {
		return nil
	}
	lines := strings.SplitAfter(s, "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}

func (d lineDiff) added() int   { return d.count(insert) }
func (d lineDiff) removed() int { return d.count(remove) }

func (d lineDiff) count(kind int) (n int) {
	for _, run := range d.runs {
		if run.kind == kind {
			n += run.count
		}
	}
	return n
}

// A step is a run of a path through the edit graph, linked to the step before.
type step struct {
	prev  int32 // index of the step before, -1 at the start
	kind  int32
	count int32
}

// A path is the furthest one known on a diagonal.
type path struct {
	old  int32 // lines of old used up
	last int32 // its last step, -1 for none
	set  bool
}

// shortestScript is Myers' greedy algorithm ("An O(ND) Difference Algorithm and
// Its Variations", 1986). Of two equally long ways it takes the one that has
// used up more of old, and removes before it inserts when both have used the
// same: with that choice the scripts are those of the npm package. ok is false
// when the texts differ by more than maxEdits lines.
func shortestScript(old, new []int32) (runs []editRun, ok bool) {
	n, m := int32(len(old)), int32(len(new))
	var steps []step
	add := func(last int32, kind, count int32) int32 {
		if last >= 0 && steps[last].kind == kind {
			// A new step rather than a longer one: others may share the old.
			steps = append(steps, step{steps[last].prev, kind, steps[last].count + count})
		} else {
			steps = append(steps, step{last, kind, count})
		}
		return int32(len(steps) - 1)
	}
	// slide follows equal lines down the diagonal k (= old used - new used).
	slide := func(p *path, k int32) (done bool, newUsed int32) {
		x, y := p.old, p.old-k
		for x < n && y < m && old[x] == new[y] {
			x++
			y++
		}
		if x > p.old {
			p.last = add(p.last, keep, x-p.old)
			p.old = x
		}
		return x >= n && y >= m, y
	}
	finish := func(p path) []editRun {
		var out []editRun
		for i := p.last; i >= 0; i = steps[i].prev {
			out = append(out, editRun{int(steps[i].kind), int(steps[i].count)})
		}
		for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
			out[i], out[j] = out[j], out[i]
		}
		return out
	}
	limit := min(n+m, maxEdits)
	paths := make([]path, 2*limit+3)
	at := func(k int32) *path { return &paths[k+limit+1] }
	start := path{last: -1, set: true}
	if done, _ := slide(&start, 0); done {
		return finish(start), true
	}
	*at(0) = start
	lowest, highest := -limit, limit
	for d := int32(1); d <= limit; d++ {
		for k := max(lowest, -d); k <= min(highest, d); k += 2 {
			below, above := *at(k - 1), *at(k + 1)
			at(k - 1).set = false
			canInsert := above.set && above.old-(k+1) >= 0 && above.old-(k+1) < m
			canRemove := below.set && below.old < n
			var p path
			switch {
			case !canInsert && !canRemove:
				at(k).set = false
				continue
			case !canRemove || canInsert && below.old < above.old:
				p = path{above.old, add(above.last, insert, 1), true}
			default:
				p = path{below.old + 1, add(below.last, remove, 1), true}
			}
			done, used := slide(&p, k)
			if done {
				return finish(p), true
			}
			*at(k) = p
			// Past an edge of the graph a diagonal leads nowhere.
			if p.old >= n {
				highest = min(highest, k-1)
			}
			if used >= m {
				lowest = max(lowest, k+1)
			}
		}
	}
	return nil, false
}

// coarseScript keeps what is equal at both ends and replaces what is between.
func coarseScript(old, new []int32) []editRun {
	head := 0
	for head < len(old) && head < len(new) && old[head] == new[head] {
		head++
	}
	tail := 0
	for tail < len(old)-head && tail < len(new)-head && old[len(old)-1-tail] == new[len(new)-1-tail] {
		tail++
	}
	var runs []editRun
	for _, run := range []editRun{{keep, head}, {remove, len(old) - head - tail}, {insert, len(new) - head - tail}, {keep, tail}} {
		if run.count > 0 {
			runs = append(runs, run)
		}
	}
	return runs
}

// unified writes the difference as a patch of one file, "Index:" line and all.
func (d lineDiff) unified(name string) string {
	var b strings.Builder
	b.WriteString("Index: " + name + "\n")
	b.WriteString(strings.Repeat("=", 67) + "\n")
	b.WriteString("--- " + name + "\n+++ " + name + "\n")
	for _, h := range d.hunks() {
		text := h.String()
		if b.Len()+len(text) > maxPatch {
			break
		}
		b.WriteString(text)
	}
	return b.String()
}

type hunk struct {
	oldStart, oldLines, newStart, newLines int
	lines                                  []string // each with its mark, no newline at the end
}

func (h *hunk) add(mark string, lines []string) {
	for _, line := range lines {
		body, ended := strings.CutSuffix(line, "\n")
		h.lines = append(h.lines, mark+body)
		if !ended {
			h.lines = append(h.lines, `\ No newline at end of file`)
		}
	}
	if mark != "+" {
		h.oldLines += len(lines)
	}
	if mark != "-" {
		h.newLines += len(lines)
	}
}

func (h *hunk) String() string {
	// An empty side is numbered by the line before it.
	from, to := h.oldStart, h.newStart
	if h.oldLines == 0 {
		from--
	}
	if h.newLines == 0 {
		to--
	}
	return "@@ -" + strconv.Itoa(from) + "," + strconv.Itoa(h.oldLines) +
		" +" + strconv.Itoa(to) + "," + strconv.Itoa(h.newLines) + " @@\n" +
		strings.Join(h.lines, "\n") + "\n"
}

func (d lineDiff) hunks() []*hunk {
	var all []*hunk
	var open *hunk
	i, j := 0, 0 // lines of old and new passed
	for r, run := range d.runs {
		if run.kind == keep {
			if open != nil {
				if run.count <= 2*contextLines && r < len(d.runs)-1 {
					open.add(" ", d.old[i:i+run.count])
				} else {
					open.add(" ", d.old[i:i+min(run.count, contextLines)])
					open = nil
				}
			}
			i += run.count
			j += run.count
			continue
		}
		if open == nil {
			lead := 0
			if r > 0 { // the run before a hunk is always one of kept lines
				lead = min(contextLines, d.runs[r-1].count)
			}
			open = &hunk{oldStart: i - lead + 1, newStart: j - lead + 1}
			open.add(" ", d.old[i-lead:i])
			all = append(all, open)
		}
		if run.kind == insert {
			open.add("+", d.new[j:j+run.count])
			j += run.count
		} else {
			open.add("-", d.old[i:i+run.count])
			i += run.count
		}
	}
	return all
}

// trimIndent takes the indentation that all the lines of a patch share away, as
// OpenCode does before it shows one.
func trimIndent(patch string) string {
	lines := strings.Split(patch, "\n")
	body := func(line string) bool {
		return line != "" && strings.ContainsRune("+- ", rune(line[0])) &&
			!strings.HasPrefix(line, "---") && !strings.HasPrefix(line, "+++")
	}
	shared := -1
	for _, line := range lines {
		if body(line) && trim(line[1:]) != "" {
			if n := indentLen(line[1:]); shared < 0 || n < shared {
				shared = n
			}
		}
	}
	if shared <= 0 {
		return patch
	}
	for i, line := range lines {
		if body(line) {
			lines[i] = line[:1] + line[min(1+shared, len(line)):]
		}
	}
	return strings.Join(lines, "\n")
}

// patchText is what clients are shown for a change of one file.
func patchText(name, old, new string) (string, lineDiff) {
	d := diffLines(clean(old), clean(new))
	return trimIndent(d.unified(name)), d
}
