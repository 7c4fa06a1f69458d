package tool

import (
	"strings"
)

// What a command line will run is read off its text, for the permissions that
// bash asks for: each simple command with its words, those in substitutions,
// loops, functions and here-documents too. This is no defence (a command line
// can compute what it runs; the sandbox is the defence) but what a person has
// written rules for.

const (
	maxNesting = 64   // substitutions inside each other
	maxCalls   = 1000 // commands of one line
)

// scanned is what was found in a command line.
type scanned struct {
	calls []call
	bad   bool // it could not be read to its end; then it is asked for as a whole
}

// A call is a simple command.
type call struct {
	words []word
	text  string // as written, with its redirections unless it is joined to one before
}

// A word of a call.
type word struct {
	raw   string // as written, quotes included
	value string // without quotes
	plain bool   // a literal: no expansion alone, no number alone
}

func (c call) name() string {
	if len(c.words) == 0 || !c.words[0].plain {
		return ""
	}
	return c.words[0].value
}

type scanner struct {
	src     string
	pos     int
	out     *scanned
	nesting int
	docs    []heredocMark // here-documents whose bodies come after the next newline
	joined  bool          // what comes is joined to what was by |, && or ||
}

type heredocMark struct {
	word    string
	tabs    bool // <<-: leading tabs are taken off
	literal bool // quoted: nothing in it is expanded
	call    int  // the call it belongs to, -1 if its text is not part of that
	start   int  // where that call begins
}

func scanCommand(src string) scanned {
	var out scanned
	s := &scanner{src: src, out: &out}
	s.commands(false)
	return out
}

func (s *scanner) done() bool { return s.out.bad || s.pos >= len(s.src) }

func (s *scanner) peek(n int) byte {
	if s.pos+n < len(s.src) {
		return s.src[s.pos+n]
	}
	return 0
}

func (s *scanner) fail() { s.out.bad = true }

// nested reads a part of the line (a substitution's inside) by itself.
func (s *scanner) nested(src string) {
	if s.nesting+1 > maxNesting {
		s.fail()
		return
	}
	in := &scanner{src: src, out: s.out, nesting: s.nesting + 1}
	in.commands(false)
}

// words that begin, join or end compound commands; a command may follow each.
var beforeCommand = map[string]bool{
	"if": true, "then": true, "else": true, "elif": true, "fi": true, "while": true, "until": true,
	"do": true, "done": true, "{": true, "}": true, "!": true, "esac": true,
}

// words that are commands of the shell's grammar rather than programs.
var declarations = map[string]bool{
	"declare": true, "typeset": true, "export": true, "readonly": true, "local": true,
	"unset": true, "unsetenv": true, "[": true, "[[": true,
}

// commands reads commands to the end, or, inParens, to the closing parenthesis.
func (s *scanner) commands(inParens bool) {
	depth, cases := 0, 0
	for !s.done() {
		s.blanks()
		if s.done() {
			break
		}
		switch c := s.src[s.pos]; {
		case c == '\n':
			s.newline()
		case c == ';':
			s.pos++
			if cases > 0 && (s.peek(0) == ';' || s.peek(0) == '&') {
				for s.peek(0) == ';' || s.peek(0) == '&' {
					s.pos++
				}
				cases += s.casePattern()
			}
		case c == '&' && s.peek(1) == '>':
			s.simple()
		case c == '&' || c == '|':
			s.joined = c == '|' || s.peek(1) == '&'
			if s.pos++; s.joined && (s.peek(0) == c || s.peek(0) == '&') {
				s.pos++
			}
		case c == '(' && s.peek(1) == '(':
			s.arithmetic()
		case c == '(':
			depth++
			s.joined = false
			s.pos++
		case c == ')':
			s.pos++
			if depth == 0 {
				if !inParens {
					s.fail()
				}
				return
			}
			depth--
		default:
			switch w := s.bareWord(); {
			case beforeCommand[w]:
				s.pos += len(w)
				s.joined = false
				if w == "esac" {
					cases--
				}
			case w == "for" || w == "select":
				s.pos += len(w)
				s.loopHead()
			case w == "case":
				s.pos += len(w)
				s.blanks()
				s.word()
				s.space()
				if s.bareWord() != "in" {
					s.fail()
					return
				}
				s.pos += len("in")
				cases += 1 + s.casePattern()
			case w == "function":
				s.pos += len(w)
				s.blanks()
				s.word()
			default:
				s.simple()
			}
		}
	}
	if depth != 0 || cases != 0 || inParens {
		s.fail()
	}
}

// blanks passes over blanks, line continuations and comments.
func (s *scanner) blanks() {
	for !s.done() {
		switch c := s.src[s.pos]; {
		case c == ' ' || c == '\t' || c == '\r':
			s.pos++
		case c == '\\' && s.peek(1) == '\n':
			s.pos += 2
		case c == '#' && (s.pos == 0 || strings.IndexByte(" \t\r\n;|&()", s.src[s.pos-1]) >= 0):
			for !s.done() && s.src[s.pos] != '\n' {
				s.pos++
			}
		default:
			return
		}
	}
}

// space passes over blanks and newlines.
func (s *scanner) space() {
	for s.blanks(); !s.done() && s.src[s.pos] == '\n'; s.blanks() {
		s.newline()
	}
}

// newline passes over one, and the bodies of here-documents announced before it.
func (s *scanner) newline() {
	s.pos++
	for _, doc := range s.docs {
		body := s.pos
		if doc.call >= 0 {
			defer func() { s.out.calls[doc.call].text = trim(s.src[doc.start:min(s.pos, len(s.src))]) }()
		}
		for found := false; !found; {
			if s.pos >= len(s.src) {
				break // bash, too, takes the end for the end
			}
			end := strings.IndexByte(s.src[s.pos:], '\n')
			line := s.src[s.pos:]
			if end >= 0 {
				line = s.src[s.pos : s.pos+end]
			}
			stop := s.pos
			s.pos = min(len(s.src), s.pos+len(line)+1)
			if doc.tabs {
				line = strings.TrimLeft(line, "\t")
			}
			if found = line == doc.word; found && !doc.literal {
				s.expansions(s.src[body:stop])
			}
		}
	}
	s.docs = nil
}

// expansions reads the substitutions in a text that is not split into words.
func (s *scanner) expansions(text string) {
	if s.nesting+1 > maxNesting {
		s.fail()
		return
	}
	in := &scanner{src: text, out: s.out, nesting: s.nesting + 1}
	for !in.done() {
		switch in.src[in.pos] {
		case '\\':
			in.pos = min(len(in.src), in.pos+2)
		case '`':
			in.backquotes()
		case '$':
			in.dollar()
		default:
			in.pos++
		}
	}
}

// bareWord gives the unquoted word that begins here, "" if it is not one.
func (s *scanner) bareWord() string {
	end := s.pos
	for end < len(s.src) && strings.IndexByte(" \t\r\n;|&()<>", s.src[end]) < 0 {
		if strings.IndexByte("'\"`$\\", s.src[end]) >= 0 {
			return ""
		}
		end++
	}
	return s.src[s.pos:end]
}

// casePattern reads the pattern of a case up to its parenthesis; at esac it
// gives -1, for the case that ends.
func (s *scanner) casePattern() int {
	s.space()
	if s.bareWord() == "esac" {
		s.pos += len("esac")
		return -1
	}
	if s.peek(0) == '(' {
		s.pos++
	}
	for !s.done() {
		switch c := s.src[s.pos]; {
		case c == ')':
			s.pos++
			return 0
		case c == '|' || c == ' ' || c == '\t' || c == '\n':
			s.pos++
		case strings.IndexByte(";&<>", c) >= 0:
			s.fail()
		default:
			s.word()
		}
	}
	s.fail()
	return 0
}

// loopHead reads what stands between for and do.
func (s *scanner) loopHead() {
	s.blanks()
	if s.peek(0) == '(' && s.peek(1) == '(' {
		s.arithmetic()
		return
	}
	s.word()
	s.space()
	if s.bareWord() != "in" {
		return
	}
	s.pos += len("in")
	for s.blanks(); !s.done() && strings.IndexByte(";\n&|)", s.src[s.pos]) < 0; s.blanks() {
		s.word()
	}
}

// arithmetic reads ((…)), or two parentheses that begin something else.
func (s *scanner) arithmetic() {
	start, depth := s.pos, 0
	for i := start; i < len(s.src); i++ {
		switch s.src[i] {
		case '(':
			depth++
		case ')':
			depth--
		}
		if depth == 0 {
			if s.src[i-1] == ')' {
				s.expansions(s.src[start+2 : i-1])
			} else {
				s.nested(s.src[start+1 : i])
			}
			s.pos = i + 1
			return
		}
	}
	s.fail()
}

// simple reads a simple command: assignments, words and redirections up to an
// operator.
func (s *scanner) simple() {
	start, end := s.pos, s.pos
	joined := s.joined
	s.joined = false
	at := len(s.out.calls)
	s.out.calls = append(s.out.calls, call{}) // before those inside it
	if at >= maxCalls {
		s.fail()
		return
	}
	var words []word
	test := ""
	for s.blanks(); !s.done(); s.blanks() {
		c := s.src[s.pos]
		if test != "" && s.bareWord() != test && c != '\n' {
			if strings.IndexByte("<>|&();", c) >= 0 { // operators of a test
				s.pos++
				continue
			}
		} else if c == '\n' || c == ';' || c == ')' || c == '|' || c == '&' && s.peek(1) != '>' {
			break
		}
		if c == '(' {
			if len(words) == 1 && s.emptyParens() { // name () begins a function
				words = nil
				break
			}
			s.fail()
			return
		}
		docs := len(s.docs)
		if s.redirection() {
			if !joined {
				end = s.pos
			}
			if len(s.docs) > docs {
				if doc := &s.docs[docs]; !joined {
					doc.call, doc.start = at, start
				}
			}
			continue
		}
		if len(words) == 0 && s.assignment() {
			end = s.pos
			continue
		}
		w := s.word()
		if s.out.bad {
			return
		}
		end = s.pos
		words = append(words, w)
		if len(words) == 1 {
			test = map[string]string{"[[": "]]"}[w.raw]
		} else if w.raw == test {
			test = ""
		}
	}
	if len(words) == 0 || declarations[words[0].raw] {
		words = nil
	}
	s.out.calls[at] = call{words: words, text: trim(s.src[start:end])}
}

func (s *scanner) emptyParens() bool {
	i := s.pos + 1
	for i < len(s.src) && (s.src[i] == ' ' || s.src[i] == '\t') {
		i++
	}
	if i < len(s.src) && s.src[i] == ')' {
		s.pos = i + 1
		return true
	}
	return false
}

// assignment reads NAME=value, NAME+=value or NAME[index]=(…) if it stands here.
func (s *scanner) assignment() bool {
	i := s.pos
	for i < len(s.src) && (s.src[i] == '_' || isAlnum(s.src[i]) && (i > s.pos || s.src[i] > '9')) {
		i++
	}
	if i == s.pos {
		return false
	}
	if i < len(s.src) && s.src[i] == '[' {
		end := strings.IndexByte(s.src[i:], ']')
		if end < 0 {
			return false
		}
		i += end + 1
	}
	if i < len(s.src) && s.src[i] == '+' {
		i++
	}
	if i >= len(s.src) || s.src[i] != '=' {
		return false
	}
	s.pos = i + 1
	if s.peek(0) == '(' {
		s.pos++
		for s.space(); !s.done() && s.src[s.pos] != ')'; s.space() {
			s.word()
		}
		if s.done() {
			s.fail()
		} else {
			s.pos++
		}
		return true
	}
	if !s.done() && strings.IndexByte(" \t\r\n;|&)<>", s.src[s.pos]) < 0 {
		s.word()
	}
	return true
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// redirection reads one with its target if it stands here.
func (s *scanner) redirection() bool {
	i := s.pos
	for i < len(s.src) && s.src[i] >= '0' && s.src[i] <= '9' {
		i++
	}
	if i < len(s.src) && s.src[i] == '&' && i == s.pos {
		i++
	}
	if i >= len(s.src) || s.src[i] != '<' && s.src[i] != '>' {
		return false
	}
	if i+1 < len(s.src) && s.src[i+1] == '(' {
		return false // process substitution, a word
	}
	rest := s.src[i:]
	op := rest[:1]
	for _, o := range []string{"<<<", "<<-", "&>>", "<<", ">>", "<&", ">&", "<>", ">|"} {
		if strings.HasPrefix(rest, o) {
			op = o
			break
		}
	}
	s.pos = i + len(op)
	if (op == "<&" || op == ">&") && s.peek(0) == '-' {
		s.pos++
		return true
	}
	s.blanks()
	if s.done() || strings.IndexByte("\n;|&()", s.src[s.pos]) >= 0 {
		s.fail()
		return true
	}
	w := s.word()
	if op == "<<" || op == "<<-" {
		s.docs = append(s.docs, heredocMark{word: w.value, tabs: op == "<<-", literal: w.value != w.raw, call: -1})
	}
	return true
}

// fileCommands are the commands whose arguments are taken for files.
var fileCommands = map[string]bool{
	"cd": true, "chdir": true, "popd": true, "pushd": true, "rm": true, "cp": true, "mv": true,
	"mkdir": true, "touch": true, "chmod": true, "chown": true, "cat": true,
}

// fileArguments gives those arguments of a call that name files.
func fileArguments(c call) []string {
	name := c.name()
	if !fileCommands[name] {
		return nil
	}
	var paths []string
	for _, w := range c.words[1:] {
		if !w.plain || strings.HasPrefix(w.raw, "-") || name == "chmod" && strings.HasPrefix(w.raw, "+") {
			continue
		}
		paths = append(paths, w.value)
	}
	return paths
}

// permission gives what is asked for: the commands as they are written, and the
// patterns under which they could always be allowed. Changing the directory
// needs no permission.
func (s scanned) permission(command string) (patterns, always []string) {
	if s.bad {
		return []string{command}, []string{}
	}
	var texts, prefixes uniqueList
	for _, c := range s.calls {
		if len(c.words) == 0 {
			continue
		}
		switch c.name() {
		case "cd", "chdir", "popd", "pushd":
			continue
		}
		var words []string
		for _, w := range c.words {
			if w.plain {
				words = append(words, w.raw)
			}
		}
		texts.add(c.text)
		if len(words) > 0 {
			prefixes.add(strings.Join(words[:commandPrefix(words)], " ") + " *")
		}
	}
	if prefixes.list == nil {
		prefixes.list = []string{}
	}
	return texts.list, prefixes.list
}
