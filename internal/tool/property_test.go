package tool_test

import (
	"path"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/aymanbagabas/go-udiff"
	"github.com/bmatcuk/doublestar/v4"
	"pgregory.net/rapid"

	"github.com/tongs-dev/tongs/internal/tool"
)

func lines() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		text := strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"", "a", "b", " a", "\tb", "c d", "}", "{", "x\r"}), 0, 30).Draw(t, "lines"), "\n")
		if rapid.Bool().Draw(t, "newline") {
			text += "\n"
		}
		return text
	})
}

// TestDifference: a script leads from the one text to the other, is as short as
// that of another implementation, and its patch has the right form.
func TestDifference(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		old, new := lines().Draw(t, "old"), lines().Draw(t, "new")
		a, b, patch, added, removed := tool.DiffSides(old, new)
		if a != old || b != new {
			t.Fatalf("the script is about %q and %q", a, b)
		}
		plus, minus := 0, 0
		for _, line := range strings.Split(patch, "\n")[4:] {
			switch {
			case strings.HasPrefix(line, "+"):
				plus++
			case strings.HasPrefix(line, "-"):
				minus++
			}
		}
		if plus != added || minus != removed {
			t.Fatalf("+%d -%d in the patch, counted +%d -%d\n%s", plus, minus, added, removed, patch)
		}
		theirs := 0
		for _, e := range udiff.Lines(old, new) {
			theirs += strings.Count(old[e.Start:e.End], "\n") + strings.Count(e.New, "\n")
		}
		if strings.HasSuffix(old, "\n") && strings.HasSuffix(new, "\n") && added+removed > theirs {
			t.Fatalf("%d lines changed, %d would do\n%s", added+removed, theirs, patch)
		}
	})
}

func TestDifferenceOfVeryDifferentTexts(t *testing.T) {
	t.Parallel()
	old, new := "same\n"+strings.Repeat("a\nb\nc\n", 20000)+"end\n", "same\n"+strings.Repeat("d\ne\n", 20000)+"end\n"
	a, b, patch, added, removed := tool.DiffSides(old, new)
	if a != old || b != new || added != 40000 || removed != 60000 {
		t.Errorf("+%d -%d", added, removed)
	}
	if !strings.HasPrefix(patch, "Index: f\n") || len(patch) > 1<<20 {
		t.Errorf("a patch of %d bytes", len(patch))
	}
}

// TestExactReplacement: what stands there once is replaced, just as it is.
func TestExactReplacement(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		content := lines().Draw(t, "content")
		if content == "" {
			return
		}
		from := rapid.IntRange(0, len(content)-1).Draw(t, "from")
		old := content[from:rapid.IntRange(from+1, len(content)).Draw(t, "to")]
		new := rapid.SampledFrom([]string{"", "$&", "Z\n", "\\1"}).Draw(t, "new")
		if old == new {
			return
		}
		got, err := tool.Replace(content, old, new, true)
		if want := strings.ReplaceAll(content, old, new); err != nil || got != want {
			t.Fatalf("all: %q %v, want %q", got, err, want)
		}
		got, err = tool.Replace(content, old, new, false)
		if strings.Index(content, old) == strings.LastIndex(content, old) {
			if want := strings.Replace(content, old, new, 1); err != nil || got != want {
				t.Fatalf("%q %v, want %q", got, err, want)
			}
		}
	})
}

// TestPatternsAsDoublestar compares anchored patterns with another
// implementation, where the two agree on what they mean.
func TestPatternsAsDoublestar(t *testing.T) {
	t.Parallel()
	part := rapid.SampledFrom([]string{"*", "**", "a", "b", "ab", "a*", "*b", "?", "[ab]", "[!a]", "{a,bb}"})
	name := rapid.SampledFrom([]string{"a", "b", "ab", "bb", "abc", ".a"})
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOfN(part, 1, 4).Draw(t, "pattern")
		names := rapid.SliceOfN(name, 1, 4).Draw(t, "path")
		if parts[len(parts)-1] == "**" {
			parts[len(parts)-1] = "*" // here, d/** is not d
		}
		pattern, file := path.Join(parts...), path.Join(names...)
		want, err := doublestar.Match(pattern, file)
		if err != nil {
			t.Fatal(err)
		}
		got, err := tool.MatchPattern("/"+pattern, file, false)
		if err != nil || got != want {
			t.Fatalf("%q on %q: %v %v, want %v", pattern, file, got, err, want)
		}
	})
}

func TestCutting(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringOf(rapid.SampledFrom([]rune("ab\né😀"))).Draw(t, "text")
		maxLines, maxBytes := rapid.IntRange(1, 6).Draw(t, "lines"), rapid.IntRange(1, 20).Draw(t, "bytes")
		for _, got := range []string{tool.TailOf(text, maxLines, maxBytes), tool.HeadOf(text, maxLines, maxBytes)} {
			if len(got) > maxBytes || strings.Count(got, "\n") >= maxLines || !utf8.ValidString(got) {
				t.Fatalf("%q of %q with %d lines, %d bytes", got, text, maxLines, maxBytes)
			}
			if !strings.Contains(text, got) {
				t.Fatalf("%q is not in %q", got, text)
			}
			if len(text) <= maxBytes && strings.Count(text, "\n") < maxLines && got != text {
				t.Fatalf("%q was cut to %q without need", text, got)
			}
		}
	})
}

// TestClean: invalid UTF-8 becomes what WHATWG's decoder makes of it.
func TestClean(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"a": "a", "\xff": "�", "\xe2\x82": "�", "\xe2\x82x": "�x", "\xf0\x9f\x98": "�", "\xed\xa0\x80": "���", "\xc0\x80": "��",
		"\xf4\x90\x80\x80": "����", "\xe0\x80\x80": "���", "é\xc3": "é�", "\xf0\x9f\xf0\x9f\x98\x80": "�😀", "�": "�",
	} {
		if got := tool.Clean(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
