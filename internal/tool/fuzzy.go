package tool

import (
	"cmp"
	"container/heap"
	"slices"
	"strings"
	"unicode"

	"github.com/tongs-dev/tongs/sandbox"
)

// maxQuery bounds what is looked for by name, in bytes.
const maxQuery = 1024

// fuzzy scores paths by how well they match the letters of a query.
type fuzzy struct{ letters []rune }

func newFuzzy(query string) fuzzy {
	var f fuzzy
	for _, c := range query {
		if !unicode.IsSpace(c) {
			f.letters = append(f.letters, c)
		}
	}
	return f
}

const (
	perLetter   = 16
	inARow      = 12 // right behind the letter before it
	atBeginning = 10 // of a word
	atName      = 14 // of the file's name
	inName      = 6
	wholeName   = 40
	perGap      = 1 // for each letter between two, at most maxGap
	maxGap      = 8
)

// score gives a path's score; false when it does not have the letters. Letters are
// taken from the end: what is nearest to it is in the file's name.
func (f fuzzy) score(path string) (int, bool) {
	if len(f.letters) == 0 {
		return -len(path), true
	}
	text := []rune(path)
	name := 0
	for i, c := range text {
		if c == '/' {
			name = i + 1
		}
	}
	// Both ways of taking them are tried: the first that stand there, and the
	// last. A dearer search would rarely find a better one.
	best, found := 0, false
	for _, places := range [][]int{f.fromStart(text, name), f.fromStart(text, 0), f.fromEnd(text)} {
		if places == nil {
			continue
		}
		if s := f.rate(text, places, name); !found || s > best {
			best, found = s, true
		}
	}
	if !found {
		return 0, false
	}
	if strings.EqualFold(string(text[name:]), string(f.letters)) {
		best += wholeName
	}
	return best - len(text)/4, true
}

func same(want, have rune) bool {
	return want == have || unicode.IsLower(want) && unicode.ToLower(have) == want
}

// fromStart takes each letter at the first place there is, from a place on, and
// then moves them together from the end.
func (f fuzzy) fromStart(text []rune, from int) []int {
	places := make([]int, len(f.letters))
	at := from
	for i, want := range f.letters {
		for at < len(text) && !same(want, text[at]) {
			at++
		}
		if at == len(text) {
			return nil
		}
		places[i] = at
		at++
	}
	f.together(text, places)
	return places
}

// together moves letters towards the one behind them.
func (f fuzzy) together(text []rune, places []int) {
	for i := len(places) - 2; i >= 0; i-- {
		for at := places[i+1] - 1; at > places[i]; at-- {
			if same(f.letters[i], text[at]) {
				places[i] = at
			}
		}
	}
}

// fromEnd takes each letter at the last place there is.
func (f fuzzy) fromEnd(text []rune) []int {
	places := make([]int, len(f.letters))
	at := len(text) - 1
	for i := len(f.letters) - 1; i >= 0; i-- {
		for at >= 0 && !same(f.letters[i], text[at]) {
			at--
		}
		if at < 0 {
			return nil
		}
		places[i] = at
		at--
	}
	return places
}

func (f fuzzy) rate(text []rune, places []int, name int) int {
	score := 0
	for i, at := range places {
		score += perLetter
		if at >= name {
			score += inName
		}
		switch {
		case at == name:
			score += atName
		case at == 0 || begins(text[at-1], text[at]):
			score += atBeginning
		}
		if i > 0 {
			if gap := at - places[i-1] - 1; gap == 0 {
				score += inARow
			} else {
				score -= perGap * min(gap, maxGap)
			}
		}
	}
	return score
}

// begins reports whether a letter begins a word.
func begins(before, c rune) bool {
	switch before {
	case '/', '.', '_', '-', ' ':
		return true
	}
	return unicode.IsLower(before) && unicode.IsUpper(c) || !unicode.IsDigit(before) && unicode.IsDigit(c)
}

// ranking keeps the best matches. The worst is its first.
type ranking struct {
	all   []sandbox.FindMatch
	limit int
	more  bool // others were left out
}

func better(a, b sandbox.FindMatch) int {
	return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(a.Path, b.Path))
}

func (r *ranking) Len() int           { return len(r.all) }
func (r *ranking) Less(i, j int) bool { return better(r.all[i], r.all[j]) > 0 }
func (r *ranking) Swap(i, j int)      { r.all[i], r.all[j] = r.all[j], r.all[i] }
func (r *ranking) Push(x any)         { r.all = append(r.all, x.(sandbox.FindMatch)) }
func (r *ranking) Pop() any {
	last := r.all[len(r.all)-1]
	r.all = r.all[:len(r.all)-1]
	return last
}

func (r *ranking) add(m sandbox.FindMatch) {
	if len(r.all) < r.limit {
		heap.Push(r, m)
		return
	}
	if r.more = true; better(m, r.all[0]) < 0 {
		r.all[0] = m
		heap.Fix(r, 0)
	}
}

func (r *ranking) sorted() []sandbox.FindMatch {
	if r.all == nil {
		return []sandbox.FindMatch{}
	}
	slices.SortFunc(r.all, better)
	return r.all
}
