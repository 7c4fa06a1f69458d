package tool

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Patterns for paths mean what they mean to ripgrep, which the built-in glob and
// grep run: its globset with separators taken literally, one pattern a line as
// in .gitignore. They are compiled to RE2, so matching is linear in the path.

const (
	maxPattern      = 16 << 10 // bytes of one pattern
	maxAlternatives = 16       // braces inside each other
)

// A pathPattern matches paths relative to a directory, with slashes.
type pathPattern struct {
	negated bool // begins with !
	dirOnly bool // ends with /

	// One of these decides, the first that is set.
	base   string // the last part of the path is this
	suffix string // the path ends in this, after a part's beginning or middle
	re     *regexp.Regexp
}

// ignoreLine compiles a line of a file of patterns. ok is false for an empty
// line or a comment.
func ignoreLine(line string) (p pathPattern, ok bool, err error) {
	if strings.HasPrefix(line, "#") {
		return p, false, nil
	}
	if !strings.HasSuffix(line, `\ `) {
		line = trimRight(line)
	}
	if line == "" {
		return p, false, nil
	}
	anchored := false
	if strings.HasPrefix(line, `\!`) || strings.HasPrefix(line, `\#`) {
		line = line[1:]
	} else {
		line, p.negated = strings.CutPrefix(line, "!")
		line, anchored = strings.CutPrefix(line, "/")
	}
	line, p.dirOnly = strings.CutSuffix(line, "/")
	if !anchored && !strings.Contains(line, "/") && !strings.HasPrefix(line, "**/") && line != "**" {
		line = "**/" + line
	}
	if strings.HasSuffix(line, "/**") {
		line += "/*" // what is in it, not the directory itself
	}
	err = p.compile(line)
	return p, err == nil, err
}

const special = `*?[]{}\`

func (p *pathPattern) compile(glob string) error {
	if len(glob) > maxPattern {
		return fmt.Errorf("a pattern may have %d bytes", maxPattern)
	}
	if rest, ok := strings.CutPrefix(glob, "**/"); ok && rest != "" && !strings.Contains(rest, "/") {
		if !strings.ContainsAny(rest, special) {
			p.base = rest
			return nil
		}
		if tail, ok := strings.CutPrefix(rest, "*"); ok && tail != "" && !strings.ContainsAny(tail, special) {
			p.suffix = tail
			return nil
		}
	}
	expr, err := globExpr(glob)
	if err != nil {
		return err
	}
	p.re, err = regexp.Compile(expr)
	if err != nil {
		return fmt.Errorf("error parsing glob '%s': it is too complex", shorten(glob, 200))
	}
	return nil
}

// matches tells whether the pattern matches a path. name is its last part.
func (p *pathPattern) matches(rel, name string, isDir bool) bool {
	switch {
	case p.dirOnly && !isDir:
		return false
	case p.base != "":
		return name == p.base
	case p.suffix != "":
		return strings.HasSuffix(name, p.suffix)
	}
	return p.re.MatchString(rel)
}

// globExpr translates a glob.
func globExpr(glob string) (string, error) {
	if glob == "**" {
		return `(?s)\A.*\z`, nil
	}
	t := translator{glob: glob}
	t.out.WriteString(`(?s)\A`)
	if err := t.run(); err != nil {
		return "", fmt.Errorf("error parsing glob '%s': %w", shorten(glob, 200), err)
	}
	t.out.WriteString(`\z`)
	return t.out.String(), nil
}

type translator struct {
	glob  string
	pos   int
	out   strings.Builder
	depth int // braces open
}

func (t *translator) run() error {
	for t.pos < len(t.glob) {
		c, size := utf8.DecodeRuneInString(t.glob[t.pos:])
		switch c {
		case '?':
			t.out.WriteString(`[^/]`)
		case '*':
			t.stars()
			continue
		case '[':
			if err := t.class(); err != nil {
				return err
			}
			continue
		case '{':
			if t.depth++; t.depth > maxAlternatives {
				return fmt.Errorf("more than %d braces inside each other", maxAlternatives)
			}
			t.out.WriteString(`(?:`)
		case '}':
			if t.depth == 0 {
				return fmt.Errorf("unopened alternate group; missing '{' (maybe escape '}' with '[}]'?)")
			}
			t.depth--
			t.out.WriteString(`)`)
		case ',':
			if t.depth > 0 {
				t.out.WriteString(`|`)
			} else {
				t.out.WriteString(`,`)
			}
		case '\\':
			t.pos += size
			if t.pos >= len(t.glob) {
				return fmt.Errorf("dangling '\\'")
			}
			c, size = utf8.DecodeRuneInString(t.glob[t.pos:])
			t.literal(c, size)
		default:
			t.literal(c, size)
		}
		t.pos += size
	}
	if t.depth > 0 {
		return fmt.Errorf("unclosed alternate group; missing '}' (maybe escape '{' with '[{]'?)")
	}
	return nil
}

func (t *translator) literal(c rune, size int) {
	if c == utf8.RuneError && size == 1 {
		t.out.WriteString(`.`) // no text, so no exact way to say it
		return
	}
	t.out.WriteString(regexp.QuoteMeta(string(c)))
}

func (t *translator) before() byte {
	if t.pos == 0 {
		return 0
	}
	return t.glob[t.pos-1]
}

// stars reads * and **. The latter spans directories when it stands alone
// between separators, or at the ends of the pattern or of an alternative.
func (t *translator) stars() {
	prev := t.before()
	if !strings.HasPrefix(t.glob[t.pos:], "**") {
		t.pos++
		t.out.WriteString(`[^/]*`)
		return
	}
	start := t.pos
	t.pos += 2
	var next byte
	if t.pos < len(t.glob) {
		next = t.glob[t.pos]
	}
	atEnd := next == 0 || t.depth > 0 && (next == ',' || next == '}')
	switch {
	case start == 0 && (next == '/' || next == 0):
		t.out.WriteString(`(?:|.*/)`)
		t.pos = min(len(t.glob), t.pos+1)
		t.moreStars()
	case prev == '/' && atEnd:
		t.dropSlash()
		t.out.WriteString(`/.*`)
	case prev == '/' && next == '/':
		t.dropSlash()
		t.out.WriteString(`(?:/|/.*/)`)
		t.pos++
		t.moreStars()
	case t.depth > 0 && (prev == '{' || prev == ',') && (next == '/' || atEnd):
		t.out.WriteString(`(?:|.*/)`)
		if next == '/' {
			t.pos++
		} else {
			t.out.WriteString(`.*`)
		}
	default:
		t.out.WriteString(`[^/]*`)
	}
}

// moreStars passes over what repeats **/: it says no more.
func (t *translator) moreStars() {
	for strings.HasPrefix(t.glob[t.pos:], "**/") {
		t.pos += 3
	}
	if t.glob[t.pos:] == "**" {
		t.pos += 2
		t.out.WriteString(`.*`)
	}
}

// dropSlash takes back the separator written last: ** speaks for it.
func (t *translator) dropSlash() {
	s := strings.TrimSuffix(t.out.String(), "/")
	t.out.Reset()
	t.out.WriteString(s)
}

// class reads […].
func (t *translator) class() error {
	t.pos++
	rest := t.glob[t.pos:]
	var b strings.Builder
	b.WriteByte('[')
	if strings.HasPrefix(rest, "!") || strings.HasPrefix(rest, "^") {
		b.WriteByte('^')
		rest = rest[1:]
	}
	var chars []rune
	closed := false
	for i, c := range rest {
		if c == ']' && i > 0 {
			t.pos = len(t.glob) - len(rest) + i + 1
			closed = true
			break
		}
		chars = append(chars, c)
	}
	if !closed {
		return fmt.Errorf("unclosed character class; missing ']'")
	}
	quote := func(c rune) { fmt.Fprintf(&b, `\x{%x}`, c) }
	for i := 0; i < len(chars); i++ {
		quote(chars[i])
		if i+2 < len(chars) && chars[i+1] == '-' {
			if chars[i+2] < chars[i] {
				return fmt.Errorf("invalid range; '%c' > '%c'", chars[i], chars[i+2])
			}
			b.WriteByte('-')
			quote(chars[i+2])
			i += 2
		}
	}
	b.WriteByte(']')
	t.out.WriteString(b.String())
	return nil
}
