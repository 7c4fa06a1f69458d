package fleet

import (
	"cmp"
	"slices"
	"strings"
)

// nearHint names what somebody may have meant.
func nearHint(entries []Entry, ref string) string {
	type candidate struct {
		name  string
		steps int
	}
	var near []candidate
	for _, e := range entries {
		for _, name := range []string{e.Name, e.Session, e.ID} {
			if name == "" || len(name) > 2*len(ref)+8 {
				continue
			}
			if steps := distance(ref, name); steps <= max(1, (len(ref)+1)/3) || len(ref) >= 3 && strings.Contains(name, ref) {
				near = append(near, candidate{name, steps})
			}
		}
	}
	if len(near) == 0 {
		return "`tongs sandbox list` shows those there are"
	}
	slices.SortFunc(near, func(a, b candidate) int { return cmp.Or(a.steps-b.steps, cmp.Compare(a.name, b.name)) })
	names := make([]string, 0, 3)
	for _, c := range near[:min(len(near), 3)] {
		names = append(names, c.name)
	}
	return "did you mean " + strings.Join(names, " or ") + "?"
}

// distance is how many letters have to be changed, added, taken away or swapped with the next to make b
// of a. Only their first 64 bytes count.
func distance(a, b string) int {
	a, b = a[:min(len(a), 64)], b[:min(len(b), 64)]
	rows := [3][65]int{}
	before, above, row := &rows[0], &rows[1], &rows[2]
	for j := range len(b) + 1 {
		above[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			change := above[j]
			if a[i] != b[j] {
				change++
			}
			row[j+1] = min(change, row[j]+1, above[j+1]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, above, row = above, row, before
	}
	return above[len(b)]
}
