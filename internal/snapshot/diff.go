package snapshot

import (
	"bytes"
	"context"
	"strconv"
	"strings"
)

// Bounds of differences that are shown.
const (
	maxPatchBytes = 8 << 20 // of all patches together
	maxDiffFiles  = 2000
)

// FileDiff is how one file differs between two states, as OpenCode's API has it.
type FileDiff struct {
	File      string `json:"file"`  // relative to the project
	Patch     string `json:"patch"` // unified, with the whole file around it; empty for a binary file, and beyond the bounds
	Additions int    `json:"additions"`
	Deletions int    `json:"deletions"`
	Status    string `json:"status"` // added, deleted or modified
}

// Diff lists the files that differ between two states, in the order of their names, at most 2,000; patches have at
// most 8 MiB together, and files beyond that have none.
func (s *Store) Diff(ctx context.Context, span Span) ([]FileDiff, error) {
	files := []FileDiff{}
	if span.From == span.To {
		return files, nil
	}
	const op = "compare snapshots"
	out, err := s.run(ctx, op, `git diff-tree -r -z --raw --no-renames --no-abbrev "$1" "$2" && printf '\n\0' && git diff-tree -r -z --numstat --no-renames "$1" "$2"`,
		nil, MaxListBytes, string(span.From), string(span.To))
	if err != nil {
		return nil, err
	}
	raw, counts, _ := bytes.Cut(out, []byte("\n\x00"))
	status := map[string]string{}
	fields := strings.Split(string(raw), "\x00")
	for i := 0; i+1 < len(fields); i += 2 {
		switch {
		case strings.HasSuffix(fields[i], " A"):
			status[fields[i+1]] = "added"
		case strings.HasSuffix(fields[i], " D"):
			status[fields[i+1]] = "deleted"
		default:
			status[fields[i+1]] = "modified"
		}
	}
	text := map[string]bool{}
	for item := range strings.SplitSeq(string(counts), "\x00") {
		f := strings.SplitN(item, "\t", 3)
		if len(f) != 3 || len(files) >= maxDiffFiles {
			continue
		}
		one := FileDiff{File: strings.ToValidUTF8(f[2], "\uFFFD"), Status: status[f[2]]}
		one.Additions, _ = strconv.Atoi(f[0]) // "-" for a binary file
		one.Deletions, _ = strconv.Atoi(f[1])
		text[one.File] = f[0] != "-"
		files = append(files, one)
	}
	patches, err := s.patches(ctx, span)
	if err != nil {
		return nil, err
	}
	for i := range files {
		if f := &files[i]; text[f.File] {
			f.Patch = patches[f.File]
		}
	}
	return files, nil
}

// patches are the differences of text files by name, each with the head that OpenCode gives it.
func (s *Store) patches(ctx context.Context, span Span) (map[string]string, error) {
	// What is cut is cut by head, which reads on: a command that is too talkative is no error here.
	out, err := s.run(ctx, "compare snapshots", `git -c core.quotePath=false diff-tree -r -p --no-ext-diff --no-textconv --no-renames --no-color --unified=1000000 "$1" "$2" | { head -c "$3"; cat >/dev/null; }`,
		nil, maxPatchBytes+1, string(span.From), string(span.To), strconv.Itoa(maxPatchBytes))
	if err != nil {
		return nil, err
	}
	cut := len(out) == maxPatchBytes
	patches := map[string]string{}
	var last, name string
	var hunk strings.Builder
	end := func() {
		if name != "" && hunk.Len() > 0 {
			patches[name] = "Index: " + name + "\n" + strings.Repeat("=", 67) + "\n--- " + name + "\t\n+++ " + name + "\t\n" + hunk.String()
			last = name
		}
		name = ""
		hunk.Reset()
	}
	for line := range strings.Lines(strings.ToValidUTF8(string(out), "\uFFFD")) {
		switch {
		case strings.HasPrefix(line, "diff --git "):
			end()
		case hunk.Len() == 0 && (strings.HasPrefix(line, "--- ") || strings.HasPrefix(line, "+++ ")):
			if of := strings.TrimSuffix(strings.TrimSuffix(line[4:], "\n"), "\t"); of != "/dev/null" {
				name = unquote(of)[2:] // a/ or b/
			}
		case hunk.Len() > 0 || strings.HasPrefix(line, "@@ "):
			hunk.WriteString(line)
		}
	}
	end()
	if cut {
		delete(patches, last)
	}
	return patches, nil
}

// unquote reads a name as git writes one that has special characters.
func unquote(name string) string {
	if len(name) < 4 || name[0] != '"' {
		if len(name) < 2 {
			return "  "
		}
		return name
	}
	if plain, err := strconv.Unquote(name); err == nil && len(plain) > 2 {
		return strings.ToValidUTF8(plain, "\uFFFD")
	}
	return name
}

// Text is the difference between two states as git writes it, at most 8 MiB; longer ones are left out wholly.
func (s *Store) Text(ctx context.Context, span Span) (string, error) {
	if span.From == span.To {
		return "", nil
	}
	out, err := s.run(ctx, "compare snapshots", `git -c core.quotePath=false diff-tree -r -p --no-ext-diff --no-textconv --no-renames --no-color "$1" "$2" | { head -c "$3"; cat >/dev/null; }`,
		nil, maxPatchBytes+1, string(span.From), string(span.To), strconv.Itoa(maxPatchBytes))
	if err != nil || len(out) == maxPatchBytes {
		return "", err
	}
	return strings.TrimSpace(strings.ToValidUTF8(string(out), "\uFFFD")), nil
}
