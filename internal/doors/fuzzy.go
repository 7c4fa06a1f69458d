package doors

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// best returns the entries that a query means, the best first. Every word of the
// query has to be in the path, its letters in their order; without a query, short
// paths come first.
func best(all []entry, query string, limit int) []entry {
	words := strings.Fields(strings.ToLower(query))
	type scored struct {
		entry
		score int
	}
	var found []scored
	for _, e := range all {
		total, ok := 0, true
		for _, w := range words {
			s := score(e.Path, w)
			if s <= 0 {
				ok = false
				break
			}
			total += s
		}
		if ok {
			found = append(found, scored{e, total})
		}
	}
	slices.SortFunc(found, func(x, y scored) int {
		if x.score != y.score {
			return y.score - x.score
		}
		if len(x.Path) != len(y.Path) {
			return len(x.Path) - len(y.Path)
		}
		return collate(x.Path, y.Path)
	})
	out := make([]entry, 0, min(limit, len(found)))
	for _, f := range found[:min(limit, len(found))] {
		out = append(out, f.entry)
	}
	return out
}

// score says how well a word, in small letters, fits a path: 0 is not at all. A whole
// name fits better than its beginning, that better than any other piece, and those
// better than letters with others between them.
func score(p, word string) int {
	low := strings.ToLower(strings.TrimSuffix(p, "/"))
	base := low[strings.LastIndexByte(low, '/')+1:]
	switch {
	case base == word || low == word:
		return 10_000
	case strings.HasPrefix(base, word):
		return 8_000 - min(len(base), 1000)
	case strings.Contains(base, word):
		return 6_000 - min(len(base), 1000)
	case strings.Contains(low, word):
		return 4_000 - min(len(low), 1000)
	}
	// Letters in their order: gaps cost, beginnings of words count.
	at, points, last := 0, 1000, -1
	for _, c := range word {
		i := strings.IndexRune(low[at:], c)
		if i < 0 {
			return 0
		}
		i += at
		switch before, _ := utf8.DecodeLastRuneInString(low[:i]); {
		case last >= 0 && i == last:
			points += 20
		case i == 0 || !unicode.IsLetter(before) && !unicode.IsDigit(before):
			points += 15
		default:
			points -= min(i-at, 20)
		}
		at = i + utf8.RuneLen(c)
		last = at
	}
	return max(points-min(len(low)/4, 500), 1)
}
