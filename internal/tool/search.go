package tool

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/tongs-dev/tongs/internal/files"
	"github.com/tongs-dev/tongs/sandbox"
)

// The searches of the sandbox's contract. They walk, leave out and match as glob
// and grep do, but bound and answer in their own ways.

// limitOf gives a limit its default, and refuses one that is too high.
func limitOf(limit, usual, most int) (int, error) {
	switch {
	case limit == 0:
		return usual, nil
	case limit < 0 || limit > most:
		return 0, failf(sandbox.CodeInvalidArgument, "limit must be from 0 to %d", most)
	}
	return limit, nil
}

// scoped is a search under way.
type scoped struct {
	w      *walker
	isDir  bool
	ctx    context.Context
	cancel context.CancelFunc
	parent context.Context
	bytes  int
}

// newScoped prepares a search. Its context ends with the search's time.
func newScoped(ctx context.Context, env Env, s sandbox.Scope) (*scoped, error) {
	if s.Timeout < 0 || s.Timeout > sandbox.MaxSearchTimeout {
		return nil, failf(sandbox.CodeInvalidArgument, "timeout must be from 0 to %v", sandbox.MaxSearchTimeout)
	}
	if s.Timeout == 0 {
		s.Timeout = sandbox.DefaultSearchTimeout
	}
	if len(s.Include)+len(s.Exclude) > sandbox.MaxWatchPatterns {
		return nil, failf(sandbox.CodeInvalidArgument, "there are more than %d patterns", sandbox.MaxWatchPatterns)
	}
	st, err := files.Stat(s.Path)
	if err != nil {
		return nil, sandbox.FileError("", err)
	}
	if !st.IsDir() && !st.Mode().IsRegular() {
		return nil, notRegular(s.Path, st.Mode())
	}
	globs := append([]string(nil), s.Include...)
	for _, line := range s.Exclude {
		// What is excluded twice is still excluded.
		globs = append(globs, "!"+strings.TrimPrefix(line, "!"))
	}
	for _, line := range globs {
		if strings.ContainsRune(line, 0) {
			return nil, failf(sandbox.CodeInvalidArgument, "a pattern contains a NUL byte, which no path can")
		}
	}
	r := &run{Env: env}
	x := &scoped{parent: ctx, isDir: st.IsDir()}
	x.ctx, x.cancel = context.WithTimeout(ctx, s.Timeout)
	if x.w, err = r.newWalker(x.ctx, filepath.Clean(s.Path), "", s.Hidden); err == nil {
		err = x.w.addGlobs(globs)
	}
	if err != nil {
		x.cancel()
		return nil, err
	}
	x.w.noIgnore = s.NoIgnore
	return x, nil
}

// directory refuses to search a file.
func (x *scoped) directory() error {
	if !x.isDir {
		return failf(sandbox.CodeNotDirectory, "%s is no directory", x.w.root)
	}
	return nil
}

// room reports whether so much more fits into the answer.
func (x *scoped) room(n int) bool {
	x.bytes += n
	return x.bytes <= sandbox.MaxSearchBytes
}

// ended says which bound ended a search, or why it failed. by is what was reached
// on our side.
func (x *scoped) ended(by sandbox.SearchLimit, err error) (sandbox.SearchLimit, error) {
	switch {
	case x.parent.Err() != nil:
		return "", x.parent.Err()
	case by != "":
		return by, nil
	case x.ctx.Err() != nil:
		return sandbox.LimitTime, nil
	case err != nil:
		return "", err
	case x.w.full:
		return sandbox.LimitNames, nil
	}
	return "", nil
}

// Glob lists the files of a scope, whose path is absolute.
func Glob(ctx context.Context, env Env, opts sandbox.GlobOptions) (*sandbox.GlobResult, error) {
	limit, err := limitOf(opts.Limit, 1000, 10_000)
	if err != nil {
		return nil, err
	}
	x, err := newScoped(ctx, env, opts.Scope)
	if err != nil {
		return nil, err
	}
	defer x.cancel()
	if err := x.directory(); err != nil {
		return nil, err
	}
	res := &sandbox.GlobResult{Paths: []string{}}
	var by sandbox.SearchLimit
	err = x.w.walk(func(path string) error {
		switch {
		case len(res.Paths) == limit:
			by = sandbox.LimitMatches
		case !x.room(len(path)):
			by = sandbox.LimitBytes
		default:
			res.Paths = append(res.Paths, path)
			return nil
		}
		return errStop
	})
	res.Truncated, err = x.ended(by, err)
	return res, err
}

// maxContext is how many lines are shown on each side of a match.
const maxContext = 20

// Grep finds lines in the files of a scope, whose path is absolute.
func Grep(ctx context.Context, env Env, pattern string, opts sandbox.GrepOptions) (*sandbox.GrepResult, error) {
	limit, err := limitOf(opts.Limit, 1000, 10_000)
	if err != nil {
		return nil, err
	}
	if opts.Context < 0 || opts.Context > maxContext {
		return nil, failf(sandbox.CodeInvalidArgument, "context must be from 0 to %d", maxContext)
	}
	if pattern == "" {
		return nil, failf(sandbox.CodeInvalidArgument, "the pattern is empty")
	}
	if opts.Fixed {
		if strings.Contains(pattern, "\n") {
			return nil, failf(sandbox.CodeInvalidArgument, "the pattern has more than one line: each line is matched on its own")
		}
		pattern = regexp.QuoteMeta(pattern)
	}
	if opts.IgnoreCase {
		pattern = "(?i:" + pattern + ")"
	}
	re, first, piece, err := compileSearch(pattern)
	if err != nil {
		return nil, err
	}
	x, err := newScoped(ctx, env, opts.Scope)
	if err != nil {
		return nil, err
	}
	defer x.cancel()
	// One more than is wanted tells whether there are more.
	s := search{re: re, needle: first, piece: piece, pattern: pattern, root: x.w.root, isDir: x.isDir, limit: limit + 1, processors: env.Processors}
	var hits []hit
	if x.isDir {
		hits, err = s.files(x.ctx, x.w)
	} else {
		hits, err = s.file(x.ctx, x.w.root, s.limit)
	}
	// A line longer than a piece may have come several times.
	hits = slices.CompactFunc(hits, func(a, b hit) bool { return a.path == b.path && a.line == b.line })
	var by sandbox.SearchLimit
	if len(hits) > limit {
		hits, by = hits[:limit], sandbox.LimitMatches
	}
	res := &sandbox.GrepResult{Matches: make([]sandbox.GrepMatch, 0, len(hits))}
	for i, h := range hits {
		if !x.room(len(h.path) + min(len(h.text), sandbox.MaxSearchLine)) {
			hits, by = hits[:i], sandbox.LimitBytes
			break
		}
		m := sandbox.GrepMatch{Path: h.path, Line: h.line, Text: shownLine(h.text)}
		if at := re.FindStringIndex(m.Text); at != nil {
			m.Start, m.End = at[0], at[1]
		}
		res.Matches = append(res.Matches, m)
	}
	if opts.Context > 0 && len(hits) > 0 && x.ctx.Err() == nil {
		x.around(res, opts.Context)
	}
	res.Truncated, err = x.ended(by, err)
	return res, err
}

// shownLine is a line as it is shown.
func shownLine(text string) string {
	return clean(cutBytes(strings.TrimSuffix(text, "\r"), sandbox.MaxSearchLine))
}

// around adds the lines around each match, file by file, as they are now.
func (x *scoped) around(res *sandbox.GrepResult, n int) {
	all := res.Matches
	for len(all) > 0 {
		same := 1
		for same < len(all) && all[same].Path == all[0].Path {
			same++
		}
		if x.ctx.Err() != nil || !x.contextOf(all[:same], n) {
			return
		}
		all = all[same:]
	}
}

// contextOf adds the lines around the matches of one file. It is false when the
// answer is full.
func (x *scoped) contextOf(matches []sandbox.GrepMatch, n int) bool {
	f, _, err := openRegular(x.ctx, matches[0].Path)
	if err != nil {
		return true // gone meanwhile
	}
	defer f.Close()
	var recent []string // the last n lines
	next, open := 0, 0  // the match to come, and the first one that still wants lines
	line, full := 0, false
	lines := lineSplitter{limit: sandbox.MaxSearchLine}
	lines.each = func(text []byte) {
		if line++; full {
			return
		}
		shown := ""
		wanted := next < len(matches) && matches[next].Line-line <= n || open < next
		if wanted {
			shown = shownLine(string(text))
		}
		for i := open; i < next; i++ {
			if line > matches[i].Line+n {
				open = i + 1
			} else if line > matches[i].Line {
				matches[i].After = append(matches[i].After, shown)
				full = full || !x.room(len(shown))
			}
		}
		if next < len(matches) && matches[next].Line == line {
			matches[next].Before = append([]string(nil), recent...)
			for _, s := range recent {
				full = full || !x.room(len(s))
			}
			next++
		}
		if wanted {
			if recent = append(recent, shown); len(recent) > n {
				recent = recent[1:]
			}
		} else {
			recent = recent[:0]
		}
	}
	buf := make([]byte, firstChunk)
	for first := true; open < len(matches) && !full; first = false {
		k, err := f.Read(buf)
		data := buf[:k]
		if first {
			if utf16Order(data) != nil {
				return true // of a file that had to be converted, only the lines are shown
			}
			data = bytes.TrimPrefix(data, []byte(byteOrderMark))
		}
		lines.write(data)
		if err != nil {
			lines.end()
			break
		}
	}
	return !full
}

// Find finds the files of a scope, whose path is absolute, by name, loosely.
func Find(ctx context.Context, env Env, query string, opts sandbox.FindOptions) (*sandbox.FindResult, error) {
	limit, err := limitOf(opts.Limit, 100, 1000)
	if err != nil {
		return nil, err
	}
	if len(query) > maxQuery {
		return nil, failf(sandbox.CodeInvalidArgument, "the query is longer than %d bytes", maxQuery)
	}
	x, err := newScoped(ctx, env, opts.Scope)
	if err != nil {
		return nil, err
	}
	defer x.cancel()
	if err := x.directory(); err != nil {
		return nil, err
	}
	best := ranking{limit: limit}
	q := newFuzzy(query)
	err = x.w.walk(func(path string) error {
		if score, ok := q.score(relativeTo(x.w.root, path)); ok {
			best.add(sandbox.FindMatch{Path: path, Score: score})
		}
		return nil
	})
	res := &sandbox.FindResult{Matches: best.sorted()}
	var by sandbox.SearchLimit
	if best.more {
		by = sandbox.LimitMatches
	}
	if x.ctx.Err() != nil && errors.Is(x.ctx.Err(), context.DeadlineExceeded) {
		by = "" // what is missing may be better
	}
	res.Truncated, err = x.ended(by, err)
	return res, err
}
