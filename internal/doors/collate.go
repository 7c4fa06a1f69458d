package doors

import (
	"strings"
	"unicode"
)

// order is that of the signs before the digits in the root collation of Unicode
// (CLDR), which is how OpenCode sorts names.
const order = "_-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$"

// collate compares two names as a person would sort them: signs, digits, letters
// whatever their case; small letters first where that is the only difference.
func collate(a, b string) int {
	x, y := []rune(a), []rune(b)
	for i := range min(len(x), len(y)) {
		if d := weight(x[i]) - weight(y[i]); d != 0 {
			return d
		}
	}
	if d := len(x) - len(y); d != 0 {
		return d
	}
	for i := range x {
		if x[i] != y[i] {
			if unicode.IsLower(x[i]) {
				return -1
			}
			return 1
		}
	}
	return 0
}

func weight(c rune) int {
	if i := strings.IndexRune(order, c); i >= 0 {
		return 0x100 + i
	}
	switch {
	case c <= ' ':
		return int(c)
	case c >= '0' && c <= '9':
		return 0x200 + int(c)
	}
	c = unicode.ToLower(c)
	for i, same := range accented {
		if strings.ContainsRune(same, c) {
			return 0x300 + int('a') + i
		}
	}
	return 0x300 + int(c)
}

// accented are letters, by the one from a to z beside which they stand.
var accented = []string{"àáâãäåāăą", "", "çćĉċč", "ďđ", "èéêëēĕėęě", "", "ĝğġģ", "ĥħ", "ìíîïĩīĭįı", "ĵ", "ķ", "ĺļľł", "", "ñńņň", "òóôõöøōŏő", "", "", "ŕŗř", "śŝşš", "ţťŧ", "ùúûüũūŭůűų", "", "ŵ", "", "ýÿŷ", "źżž"}
