package tool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/tongs-dev/tongs/internal/files"
)

// maxEntries bounds the entries of a directory that are looked at.
const maxEntries = 500_000

// dirNames reads a directory, sorted by name.
func dirNames(ctx context.Context, dir string) ([]fs.DirEntry, error) {
	f, err := files.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []fs.DirEntry
	for len(all) < maxEntries {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		part, err := f.ReadDir(4096)
		all = append(all, part...)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(all, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return all, nil
}

// readDir makes the answer for a directory.
func (r *run) readDir(ctx context.Context, path string, offset, limit int64) (Result, error) {
	found, err := dirNames(ctx, path)
	if err != nil {
		return Result{}, readError(path, err)
	}
	names := make([]collated, len(found))
	for i, e := range found {
		name := clean(e.Name())
		isDir := e.IsDir()
		if e.Type()&fs.ModeSymlink != 0 {
			st, err := files.Stat(filepath.Join(path, e.Name()))
			isDir = err == nil && st.IsDir()
		}
		if isDir {
			name += "/"
		}
		names[i] = collate(name)
	}
	slices.SortStableFunc(names, collated.compare)
	total := int64(len(names))
	from := min(offset-1, total)
	shown := make([]string, 0, min(limit, total-from))
	head := "<path>" + path + "</path>\n<type>directory</type>\n<entries>\n"
	room, rows := r.MaxBytes-len(head)-160, r.MaxLines-7
	for _, n := range names[from:] {
		if room -= len(n.name) + 1; int64(len(shown)) >= limit || room < 0 || len(shown) >= rows {
			break
		}
		shown = append(shown, n.name)
	}
	truncated := from+int64(len(shown)) < total
	note := fmt.Sprintf("\n(%d entries)", total)
	if truncated {
		note = fmt.Sprintf("\n(Showing %d of %d entries. Use 'offset' parameter to read beyond entry %d)", len(shown), total, offset+int64(len(shown)))
	}
	return Result{
		Title:  r.relative(path),
		Output: head + strings.Join(shown, "\n") + "\n" + note + "\n</entries>",
		Metadata: map[string]any{
			"preview":   strings.Join(shown[:min(len(shown), previewLines)], "\n"),
			"truncated": truncated,
			"loaded":    []string{},
			"display": map[string]any{
				"type": "directory", "path": path, "entries": shown, "offset": offset,
				"totalEntries": total, "truncated": truncated,
			},
		},
	}, nil
}

// A collated name carries the keys by which people's dictionaries order it:
// first the letters and marks, whatever their case, then small before capital.
// The order of the marks is the Unicode collation's (CLDR root); letters beyond
// ASCII come after z, by code point.
type collated struct {
	name    string
	primary []int32
}

// marks in their order, before digits and letters.
const markOrder = "\t\n\v\f\r _-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$"

func collate(name string) collated {
	c := collated{name: name, primary: make([]int32, 0, len(name))}
	for _, ch := range name {
		switch i := strings.IndexRune(markOrder, ch); {
		case i >= 0:
			c.primary = append(c.primary, int32(i)+1)
		case ch < ' ' || ch == 0x7f:
			// ignored, as the collation does with control characters
		default:
			c.primary = append(c.primary, 1000+unicode.ToLower(ch))
		}
	}
	return c
}

func (c collated) compare(d collated) int {
	if n := slices.Compare(c.primary, d.primary); n != 0 {
		return n
	}
	a, b := []rune(c.name), []rune(d.name)
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] && unicode.ToLower(a[i]) == unicode.ToLower(b[i]) {
			if unicode.IsLower(a[i]) {
				return -1
			}
			return 1
		}
	}
	return cmp.Compare(c.name, d.name)
}
