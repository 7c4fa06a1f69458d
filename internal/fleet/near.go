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

// distance is how many letters have to be changed, added or taken away to make b of a.
func distance(a, b string) int {
	a, b = a[:min(len(a), 64)], b[:min(len(b), 64)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
