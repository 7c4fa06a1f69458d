package tool_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tongs-dev/tongs/internal/tool"
)

// Looking for plain text first changes no answer.
func TestNeedleChangesNothing(t *testing.T) {
	t.Parallel()
	patterns := []string{
		`(?i)needle`, `(?i)nee.le`, `(?i)kiss`, `(?i)^needle$`, `\w+needle`, `(needle|kiss)`, `(?i)(needle)+\s`, `(?i)[^x]needle`,
		`(?i)needle[^x]+kiss`, `(?i)(?:needle){2,}`, `.*needle`, `(?i)\Aneedle`, `(?i)needle\z`, `(?i)schließen`,
	}
	parts := []string{"needle", "NEEDLE", "Needle", "\n", "\r\n", " ", "x", "K", "\u212aiss", "kiſs", "kiss", "\xff", "ß", "nee", "dle"}
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.SampledFrom(patterns).Draw(t, "pattern")
		text := strings.Join(rapid.SliceOfN(rapid.SampledFrom(parts), 0, 60).Draw(t, "text"), "")
		with, without, first, err := tool.SearchText(pattern, text)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(without, with); diff != "" {
			t.Fatalf("%q by %q in %q: %s", pattern, first, text, diff)
		}
	})
}

func TestNeedles(t *testing.T) {
	t.Parallel()
	for pattern, want := range map[string]string{
		`(?i)NEEDLE`: "needle", `a+(?i:long)er`: "long", `x|needle`: "", `\w+(needle)?`: "", `needle`: "", `(?i)ab`: "", `(?i)^needle$`: "needle",
		`(?i)\Aneedle`: "", `(?i)größer`: "", `(?:[xy]abcd){2}`: "abcd", `(?:[xy]abcd){0,2}`: "",
	} {
		if _, _, got, err := tool.SearchText(pattern, ""); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", pattern, got, err, want)
		}
	}
}
