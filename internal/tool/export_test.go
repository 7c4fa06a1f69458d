package tool

import (
	"context"
	"strings"
	"time"
)

// The parts that fuzzing and properties look at by themselves.

func ParsePatch(text string) (int, error) {
	s, err := parsePatch(text)
	return len(s), err
}

// ApplyPatchText applies the sections of a patch that update a file to a text.
func ApplyPatchText(patch, text string) (string, error) {
	sections, err := parsePatch(patch)
	for _, s := range sections {
		if err != nil || s.kind != updateFile {
			continue
		}
		text, err = s.apply("f", text)
	}
	return text, err
}

// ApplyUnified applies what a unified diff does to its first file to a text.
func ApplyUnified(patch, text string) (string, error) {
	all, err := parseUnified(patch)
	if err != nil || len(all) == 0 {
		return text, err
	}
	return all[0].apply("f", text)
}

func Replace(content, old, new string, all bool) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return newMatcher(ctx, content, old).replace(new, all)
}

// MatchPattern matches a path against a pattern as in .gitignore.
func MatchPattern(pattern, path string, isDir bool) (bool, error) {
	p, ok, err := ignoreLine(pattern)
	if err != nil || !ok {
		return false, err
	}
	return p.matches(path, path[strings.LastIndexByte(path, '/')+1:], isDir), nil
}

// ScanCommand gives the commands found, and whether all of the line was read.
func ScanCommand(line string) (patterns, always []string, read bool) {
	s := scanCommand(line)
	patterns, always = s.permission(line)
	return patterns, always, !s.bad
}

// DiffSides gives what a difference says the two texts were.
func DiffSides(old, new string) (a, b, patch string, added, removed int) {
	d := diffLines(old, new)
	i, j := 0, 0
	for _, run := range d.runs {
		switch run.kind {
		case keep:
			a += strings.Join(d.old[i:i+run.count], "")
			b += strings.Join(d.new[j:j+run.count], "")
			i, j = i+run.count, j+run.count
		case remove:
			a += strings.Join(d.old[i:i+run.count], "")
			i += run.count
		default:
			b += strings.Join(d.new[j:j+run.count], "")
			j += run.count
		}
	}
	return a, b, d.unified("f"), d.added(), d.removed()
}

func Sweep(dir string, now time.Time) { sweep(dir, now) }

func TailOf(text string, lines, bytes int) string { return tailOf(text, lines, bytes) }
func HeadOf(text string, lines, bytes int) string { return headOf(text, lines, bytes) }
func Clean(s string) string                       { return clean(s) }

// SearchText gives the numbers of the lines of a text that a pattern matches, with the needle and without it,
// and the needle.
func SearchText(pattern, text string) (with, without []int, first string, err error) {
	re, n, piece, err := compileSearch(pattern)
	if err != nil {
		return nil, nil, "", err
	}
	found := func(n needle) (lines []int) {
		s := &search{re: re, needle: n, piece: piece}
		line := 1
		for _, h := range s.lines(context.Background(), []byte(text), "f", &line, nil, 1<<20) {
			lines = append(lines, h.line)
		}
		return append(lines, -line) // and where it has ended
	}
	return found(n), found(needle{}), string(n.text), nil
}
