package tool

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"regexp/syntax"
	"strings"

	"github.com/tongs-dev/tongs/internal/files"
	"github.com/tongs-dev/tongs/sandbox"
)

const (
	maxExpression = 64 << 10 // bytes of a regular expression
	maxShownLine  = 2000     // UTF-16 units of a line that are shown
	// An expression's cost is its size times the bytes it looks at. Larger ones
	// are refused, and of the others as much is done at once as takes a moment.
	maxProgram = 20_000
	pieceWork  = 8 << 20
	minPiece   = 16 << 10
)

// A hit is a line that matches.
type hit struct {
	path string // absolute
	line int    // from 1
	text string // without its "\n"
	ends bool   // it has one
}

// grep searches the contents of files.
func grep(ctx context.Context, r *run, a *args) (Result, error) {
	pattern := a.str("pattern", true)
	dir := a.path("path", false)
	include := a.str("include", false)
	if strings.ContainsRune(pattern, 0) || strings.ContainsRune(include, 0) {
		a.fail(`"pattern" and "include" cannot contain a NUL byte; write \x00`)
	}
	if a.err != nil {
		return Result{}, a.err
	}
	if pattern == "" {
		return Result{}, failf(sandbox.CodeInvalidArgument, "pattern is required")
	}
	err := r.ask(ctx, "grep", []string{pattern}, []string{"*"}, given(a, "pattern", "path", "include"))
	if err != nil {
		return Result{}, err
	}
	root, st, serr := r.searchDir(dir)
	isDir := serr == nil && st.IsDir()
	if err := r.askExternal(ctx, root, isDir); err != nil {
		return Result{}, err
	}
	if serr != nil {
		if errors.Is(serr, files.ErrMagicLink) {
			return Result{}, readError(root, serr)
		}
		return Result{}, fail(serr, "grep path does not exist or cannot be read: %s", root)
	}
	if !isDir && !st.Mode().IsRegular() {
		return Result{}, notRegular(root, st.Mode())
	}
	re, first, piece, err := compileSearch(pattern)
	if err != nil {
		return Result{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, searchTime)
	defer cancel()
	s := search{r: r, re: re, needle: first, piece: piece, pattern: pattern, include: include, root: root, isDir: isDir, limit: maxFound, processors: r.Processors}
	hits, more, err := s.run(ctx)
	if err != nil {
		if ctx.Err() == context.DeadlineExceeded {
			err = failf(sandbox.CodeTimeout, "The search took longer than %v. Use a more specific path or include.", searchTime)
		}
		return Result{}, err
	}
	res := Result{Title: pattern, Output: "No files found", Metadata: map[string]any{"matches": len(hits), "truncated": more}}
	if len(hits) > 0 {
		res.Output = r.fit(describeHits(hits, more))
	}
	return res, nil
}

func describeHits(hits []hit, more bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Found %d matches", len(hits))
	if more {
		b.WriteString(" (more matches available)")
	}
	last := ""
	for _, h := range hits {
		if h.path != last {
			if last != "" {
				b.WriteString("\n")
			}
			last = h.path
			b.WriteString("\n" + h.path + ":")
		}
		fmt.Fprintf(&b, "\n  Line %d: %s", h.line, showLine(h))
	}
	if more {
		b.WriteString("\n\n(Results truncated. Consider using a more specific path or pattern.)")
	}
	return b.String()
}

// showLine gives a line as the built-in shows it: with its newline, or cut.
func showLine(h hit) string {
	text := clean(h.text)
	if cut := utf16Cut(text, maxShownLine); cut != text {
		return cut + "..."
	}
	if h.ends {
		text += "\n"
	}
	return text
}

// compileSearch compiles a pattern to be matched against single lines, and says
// what to look for first and how many bytes it may look at in one go.
func compileSearch(pattern string) (re *regexp.Regexp, first needle, piece int, err error) {
	if len(pattern) > maxExpression {
		return nil, first, 0, failf(sandbox.CodeInvalidArgument, "regex parse error: the pattern is longer than %d KiB", maxExpression>>10)
	}
	if strings.Contains(pattern, "\n") || strings.Contains(strings.ReplaceAll(pattern, `\\`, ""), `\n`) {
		return nil, first, 0, failf(sandbox.CodeInvalidArgument, `the literal "\n" is not allowed in a regex: each line is matched on its own. Search for one of the lines.`)
	}
	re, err = regexp.Compile("(?m:" + pattern + ")")
	if err != nil {
		why := err.Error()
		if se, ok := err.(*syntax.Error); ok {
			why = se.Code.String() + ": " + shorten(se.Expr, 100)
			if se.Code == syntax.ErrInvalidPerlOp {
				why += " (look-around and back-references are not supported)"
			}
		}
		return nil, first, 0, failf(sandbox.CodeInvalidArgument, "regex parse error: %s in %q. Escape characters meant literally.", why, shorten(pattern, 200))
	}
	size := 0
	if tree, err := syntax.Parse("(?m:"+pattern+")", syntax.Perl); err == nil {
		if prog, err := syntax.Compile(tree.Simplify()); err == nil {
			size = len(prog.Inst)
		}
		first = needleOf(re, tree)
	}
	if size > maxProgram {
		return nil, first, 0, failf(sandbox.CodeInvalidArgument, "regex parse error: the pattern %q is too complex. Repeat less.", shorten(pattern, 200))
	}
	return re, first, max(minPiece, pieceWork/max(size, 8)), nil
}

// search is one grep.
type search struct {
	r       *run
	re      *regexp.Regexp
	needle  needle
	piece   int // bytes to look at in one go
	pattern string
	include string
	root    string
	isDir   bool
	limit   int // hits that are wanted

	processors func() (int, func()) // of Env
}

// run gives the first hits in the order of paths and lines, and whether there
// may be more.
func (s *search) run(ctx context.Context) (hits []hit, more bool, err error) {
	if s.r.Ripgrep != "" && s.r.Shell != nil && s.isDir {
		if hits, more, ok := s.ripgrep(ctx); ok {
			return hits, more, nil
		}
		if err := ctx.Err(); err != nil {
			return nil, false, err
		}
	}
	if !s.isDir {
		hits, err = s.file(ctx, s.root, maxFound)
		return hits, len(hits) == maxFound, err
	}
	w, err := s.r.newWalker(ctx, s.root, s.include, true)
	if err != nil {
		return nil, false, err
	}
	hits, err = s.files(ctx, w)
	return hits, len(hits) >= maxFound || w.full, err
}

// ripgrep lets an rg do it. It is not ok when rg could not: it isn't there, is
// of another kind, or knows another dialect of regular expressions.
func (s *search) ripgrep(ctx context.Context) (hits []hit, more, ok bool) {
	argv := []string{
		s.r.Ripgrep, "--no-config", "--hidden", "--no-messages", "--sort=path", "--color=never",
		"--no-heading", "--with-filename", "--line-number", "--null",
		// Bytes, so that what is shown is whole; the rest rg leaves out.
		"--max-columns=8192", "--max-columns-preview",
	}
	if s.include != "" {
		argv = append(argv, "--glob="+s.include)
	}
	argv = append(argv, "--glob=!**/.git/**", "--", s.pattern, ".")
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lines := lineSplitter{limit: 64 << 10}
	lines.each = func(line []byte) {
		path, rest, ok := strings.Cut(string(line), "\x00")
		number, text, ok2 := strings.Cut(rest, ":")
		n := 0
		if ok && ok2 {
			n = atoi(number)
		}
		if n > 0 && len(hits) < maxFound { // else it is a remark of rg's
			hits = append(hits, hit{filepath.Join(s.root, path), n, text, true})
		}
		if len(hits) == maxFound {
			cancel()
		}
	}
	exit, err := s.r.Shell.Run(ctx, Command{Argv: argv, Dir: s.root, Env: s.r.Environ}, lines.write)
	lines.end()
	if len(hits) == maxFound {
		return hits, true, true
	}
	// 0 is found, 1 is nothing found, 2 is an error, perhaps only about a file.
	ok = err == nil && exit.Code != nil && (*exit.Code < 2 || *exit.Code == 2 && len(hits) > 0)
	return hits, false, ok
}

func atoi(s string) int {
	n := 0
	for _, c := range s {
		if c < '0' || c > '9' || n > 1<<50 {
			return 0
		}
		n = n*10 + int(c-'0')
	}
	return n
}

// lineSplitter cuts a stream into lines; of one longer than limit it keeps the
// beginning.
type lineSplitter struct {
	limit int
	each  func(line []byte)
	part  []byte
	open  bool
}

func (l *lineSplitter) write(p []byte) {
	for len(p) > 0 {
		line, rest, ended := cutLine(p)
		l.open = true
		l.part = append(l.part, line[:min(len(line), max(0, l.limit-len(l.part)))]...)
		if ended {
			l.end()
		}
		p = rest
	}
}

func (l *lineSplitter) end() {
	if l.open {
		l.each(l.part)
	}
	l.part, l.open = l.part[:0], false
}
