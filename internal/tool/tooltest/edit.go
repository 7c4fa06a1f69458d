package tooltest

import "strings"

// EditCases are those of edit.
func EditCases() []Case {
	edit := func(name, before, old, new string, more ...any) Case {
		args := m{"filePath": "{P}/a.txt", "oldString": old, "newString": new}
		for i := 0; i+1 < len(more); i += 2 {
			args[more[i].(string)] = more[i+1]
		}
		return Case{Name: name, Files: f{"a.txt": before}, Tool: "edit", Args: args}
	}
	all := []any{"replaceAll", true}
	code := "func main() {\n\tif x {\n\t\tfoo(1)\n\t\tbar(2)\n\t}\n\treturn\n}\n"
	other := func(g Case, why string) Case { g.Differs = why; return g }
	return []Case{
		edit("simple", "one two three\n", "two", "2"),
		edit("one of several lines", "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\n", "f\n", "F\nG\n"),
		edit("several matches", "x\ny\nx\n", "x", "z"),
		edit("replaceAll", "x\ny\nx\nxx\n", "x", "z", all...),
		edit("replaceAll, one match", "x\ny\n", "x", "z", all...),
		other(edit("replaceAll with $", "x\ny\nx\n", "x", "$& $$ $1", all...), "the built-in takes $& in newString for a pattern"),
		edit("$ is literal", "x\ny\n", "x", "$& $$ $1"),
		edit("not found", "abc\n", "zzz", "y"),
		edit("identical", "abc\n", "abc", "abc"),
		edit("delete text", "abc def\n", " def", ""),
		edit("delete a line", "a\nb\nc\n", "b\n", ""),
		edit("delete all", "abc", "abc", ""),
		edit("empty old, file there", "abc\n", "", "x"),
		{Name: "empty old, new file", Tool: "edit", Args: m{"filePath": "{P}/n/new.txt", "oldString": "", "newString": "x\ny"}},
		{Name: "empty old, new file with bom", Tool: "edit", Args: m{"filePath": "{P}/new.txt", "oldString": "", "newString": "\ufeffx\n"}},
		{Name: "missing file", Tool: "edit", Args: m{"filePath": "{P}/no.txt", "oldString": "a", "newString": "b"}},
		{Name: "directory", Files: f{"d/": ""}, Tool: "edit", Args: m{"filePath": "{P}/d", "oldString": "a", "newString": "b"}},
		{Name: "empty path", Tool: "edit", Args: m{"filePath": "", "oldString": "a", "newString": "b"}},
		{Name: "relative path", Files: f{"a.txt": "a"}, Tool: "edit", Args: m{"filePath": "a.txt", "oldString": "a", "newString": "b"}},

		edit("crlf file, lf old", "one\r\ntwo\r\nthree\r\n", "one\ntwo", "1\n2"),
		edit("crlf file, crlf old", "one\r\ntwo\r\n", "one\r\ntwo", "1\r\n2"),
		edit("lf file, crlf old", "one\ntwo\n", "one\r\ntwo", "1\r\n2"),
		edit("mixed file", "one\r\ntwo\nthree\r\n", "two\nthree", "2\n3"),
		edit("bom file", "\ufeffone\ntwo\n", "one", "1"),
		edit("bom in new", "one\ntwo\n", "one", "\ufeff1"),

		edit("trimmed lines", code, "if x {\nfoo(1)\nbar(2)\n}", "if y {\n}"),
		edit("trimmed lines, trailing newline", code, "  foo(1)\n  bar(2)\n", "baz()\n"),
		edit("trimmed lines, twice", "  a\n  b\nx\n    a\n    b\n", "a\nb\n", "c\n"),
		edit("trimmed lines, twice, all", "  a\n  b\nx\n    a\n    b\n", "a \nb \n", "c\n", all...),
		edit("trailing blanks", "foo  \nbar\t\nbaz\n", "foo\nbar\nbaz", "q"),
		edit("nbsp", "foo\u00a0bar\nbaz\n", "foo bar", "q"),

		edit("block anchor", code, "if x {\n\t\tfoo(100)\n\t\tbar(2)\n\t}", "if z {\n\t}"),
		edit("block anchor, different middle", code, "\tif x {\n\t\tcompletely()\n\t\tdifferent()\n\t}", "Z"),
		edit("block anchor, one line more", "begin\n aaaa\n bbbb\n cccc\n dddd\nend\n", "begin\n aaaa\n bbbb\n cccc\nend", "Z"),
		edit("block anchor, two lines more", "begin\n aaaa\n bbbb\n cccc\n dddd\nend\n", "begin\n aaaa\n bbbb\nend", "Z"),
		edit("block anchor, candidates", "s\n aaaaaaaa\n e\nmid\ns\n aaaaaaab\n e\n", "s\n aaaaaaac\n e", "Z"),
		edit("block anchor, best candidate", "s\n zzzzzzzz\ne\nmid\ns\n aaaaaaab\ne\n", "s\n aaaaaaac\ne", "Z"),
		edit("block anchor, two lines and newline", "s\nx\ne\n", "s\ne\n", "Z"),
		edit("block anchor, far off", "s\n1\n2\n3\n4\n5\n6\n7\n8\n9\ne\n", "s\n1\ne", "Z"),
		edit("block anchor, empty middle lines", "s\n\n\ne\n", "s\n \n\t\ne", "Z"),
		edit("anchors equal", "x\na\nx\nb\nx\n", "x\nq\nx", "Z"),

		edit("whitespace in a line", "int   x =   5;\n", "int x = 5;", "int y;"),
		edit("whitespace within a line", "foo( a,    b );  // c\n", "a, b )", "Z"),
		edit("whitespace over lines", "foo(a,\n      b,   c)\n", "foo(a,\n b, c)", "Z"),
		edit("whitespace, several", "a  b\na   b\n", "a b", "Z"),
		edit("tabs for blanks", "\tif  (x)\t{\n", "if (x) {", "Z"),
		edit("regexp characters in words", "a+  (b)   [c]\n", "a+ (b) [c]", "Z"),

		edit("indentation", "class A:\n        def f(self):\n            return 1\n", "def f(self):\n    return 1", "def g(self):\n    return 2"),
		edit("deeper indentation", "  a:\n    b\n\n    c\n", "a:\n  b\n\n  c", "Z"),
		edit("escaped newline", "a\nb\n", `a\nb`, "Z"),
		edit("escaped quote", `say "hi"`+"\n", `say \"hi\"`, "Z"),
		edit("escaped tab", "a\tb\n", `a\tb`, "Z"),
		edit("escaped in the file", `x = "a\nb"`+"\n", "x = \"a\nb\"", "Z"),
		edit("escaped backslash", `c:\dir`+"\n", `c:\\dir`, "Z"),
		edit("trimmed boundary", "foo bar\n", "  foo bar  ", "Z"),
		edit("trimmed boundary over lines", "x\n  foo\nbar\ny\n", "\n\nfoo\nbar\n\n", "Z"),
		edit("context, half the lines", "start\n one\n two\n three\n four\nend\n", "start\n one\n two\n xxxxxxxxxxxxx\n yyyyyyyyyyyyyyyy\nend", "Z"),
		edit("context, too few", "start\n one\n two\n three\n four\nend\n", "start\n one\n qqqqqqqqqqqqqqqq\n xxxxxxxxxxxxx\n yyyyyyyyyyyyyyyy\nend", "Z"),
		edit("disproportionate", "s\n"+strings.Repeat("long line of text here\n", 3)+"e\n", "s\nx\ne", "Z"),
		edit("only blanks in old", "a\n\n\nb\n", "   ", "Z"),
		other(edit("only blanks in old, all", "a\n\n\nb\n", "   ", "Z", all...), "the built-in puts newString between all characters of the file"),
		edit("only newline in old, unique", "a\nb", "\n", " "),
		edit("only newlines, several", "a\n\nb\n", "\n", "Z"),
		edit("old longer than file", "a\n", "a\nb\nc\nd", "Z"),
		edit("unicode", "naïve café 😀\n", "café 😀", "tea"),
		edit("overlapping", "aaa\n", "aa", "b"),
		edit("indent shared in diff", "    a\n    b\n    c\n", "    b", "    B"),
		edit("diff with newline taken off", "a\nb\n", "b\n", "b"),
		edit("diff with newline put on", "a\nb", "b", "b\n"),
		edit("two hunks", numbered(30), "line \nline x\nline xx\nline xxx\nline xxxx\nline xxxxx\nline xxxxxx\nline \n", "Z", all...),
		edit("dashes in text", "a\n--- b\n+++ c\nd\n", "--- b", "--- B"),
		{
			Name: "bytes that are no text", Files: f{"a.txt": "one\xff\ntwo\n"}, Tool: "edit",
			Args:    m{"filePath": "{P}/a.txt", "oldString": "two", "newString": "2"},
			Differs: "the built-in replaces bytes elsewhere in the file that are no UTF-8",
		},
	}
}

// PatchCases are those of apply_patch.
func PatchCases() []Case {
	patch := func(name string, files f, lines ...string) Case {
		return Case{Name: name, Files: files, Tool: "apply_patch", Args: m{"patchText": strings.Join(lines, "\n")}}
	}
	body := func(name string, files f, lines ...string) Case {
		return patch(name, files, append(append([]string{"*** Begin Patch"}, lines...), "*** End Patch")...)
	}
	other := func(g Case, why string) Case { g.Differs = why; return g }
	a := f{"a.txt": "one\ntwo\nthree\nfour\nfive\n"}
	return []Case{
		body("add", nil, "*** Add File: new.txt", "+one", "+two"),
		body("add in new directory", nil, "*** Add File: x/y/new.txt", "+one"),
		body("add empty", nil, "*** Add File: new.txt"),
		body("add one empty line", nil, "*** Add File: new.txt", "+"),
		body("add ending in an empty line", nil, "*** Add File: new.txt", "+a", "+"),
		body("add, lines without plus", nil, "*** Add File: new.txt", "+a", "b", "+c"),
		body("add over a file", a, "*** Add File: a.txt", "+new"),
		body("add absolute", nil, "*** Add File: {P}/abs.txt", "+x"),
		body("delete", a, "*** Delete File: a.txt"),
		body("update", a, "*** Update File: a.txt", "@@", " two", "-three", "+THREE", " four"),
		body("update with context", f{"a.txt": "def a():\n  x\ndef b():\n  x\n"}, "*** Update File: a.txt", "@@ def b():", "-  x", "+  y"),
		body("update two chunks", a, "*** Update File: a.txt", "@@", "-one", "+1", "@@", "-five", "+5"),
		body("update, insertion only", a, "*** Update File: a.txt", "@@", "+six"),
		body("update, insertion only with context", a, "*** Update File: a.txt", "@@ two", "+six"),
		body("update no newline at end", f{"a.txt": "one\ntwo"}, "*** Update File: a.txt", "@@", "-two", "+2"),
		body("update trailing blanks", f{"a.txt": "one  \ntwo\t\n"}, "*** Update File: a.txt", "@@", " one", "-two", "+2"),
		body("update other indentation", f{"a.txt": "    one\n    two\n"}, "*** Update File: a.txt", "@@", " one", "-two", "+2"),
		body("update typographic", f{"a.txt": "it’s “so” – yes…\nx\n"}, "*** Update File: a.txt", "@@", `-it's "so" - yes...`, "+plain"),
		body("update with empty context line", f{"a.txt": "a\n\nb\n"}, "*** Update File: a.txt", "@@", " a", " ", "-b", "+c"),
		body("update with bare empty line", f{"a.txt": "a\n\nb\n"}, "*** Update File: a.txt", "@@", " a", "", "-b", "+c"),
		body("update with empty last line", a, "*** Update File: a.txt", "@@", "-five", "+5", " "),
		body("update all away", f{"a.txt": "a\n"}, "*** Update File: a.txt", "@@", "-a"),
		body("update bom", f{"a.txt": "\ufeffone\ntwo\n"}, "*** Update File: a.txt", "@@", "-one", "+1"),
		body("update empty file", f{"a.txt": ""}, "*** Update File: a.txt", "@@", "+x"),
		body("update without chunks", a, "*** Update File: a.txt"),
		body("update lines not found", a, "*** Update File: a.txt", "@@", "-nothing", "+x"),
		body("update context not found", a, "*** Update File: a.txt", "@@ nothing", "-one", "+x"),
		body("update missing file", nil, "*** Update File: no.txt", "@@", "-a", "+b"),
		body("update a directory", f{"d/": ""}, "*** Update File: d", "@@", "-a", "+b"),
		body("chunks out of order", a, "*** Update File: a.txt", "@@", "-five", "+5", "@@", "-one", "+1"),
		body("move", a, "*** Update File: a.txt", "*** Move to: sub/b.txt", "@@", "-one", "+1"),
		body("move without chunks", a, "*** Update File: a.txt", "*** Move to: b.txt"),
		body("move over a file", f{"a.txt": "one\n", "b.txt": "old\n"}, "*** Update File: a.txt", "*** Move to: b.txt", "@@", "-one", "+1"),
		body("three files", f{"a.txt": "a\n", "b.txt": "b\n"}, "*** Add File: c.txt", "+c", "*** Update File: a.txt", "@@", "-a", "+A", "*** Delete File: b.txt"),
		body("one bad of two", f{"a.txt": "a\n", "b.txt": "b\n"}, "*** Update File: a.txt", "@@", "-a", "+A", "*** Update File: b.txt", "@@", "-x", "+y"),
		body("outside", nil, "*** Add File: /tmp/toolgolden/x/never.txt", "+c"),
		body("empty", nil),
		body("nothing known", nil, "hello", "*** Something: x"),
		body("header without a name", nil, "*** Add File:", "+x"),
		patch("no markers", nil, "*** Add File: x", "+y"),
		patch("no end", nil, "*** Begin Patch", "*** Add File: x", "+y"),
		patch("words around", nil, "Here it is:", "*** Begin Patch", "*** Add File: x.txt", "+y", "*** End Patch", "Done."),
		patch("heredoc", nil, "cat <<'EOF'", "*** Begin Patch", "*** Add File: x.txt", "+y", "*** End Patch", "EOF"),
		patch("heredoc without cat", nil, "<<EOF", "*** Begin Patch", "*** Add File: x.txt", "+y", "*** End Patch", "EOF", ""),
		patch("empty text", nil, ""),
		patch("crlf patch", nil, "*** Begin Patch\r", "*** Add File: x.txt\r", "+y\r", "*** End Patch\r"),
		other(body("delete missing", nil, "*** Delete File: no.txt"), "the built-in passes its runtime's error on"),
		other(body("delete a directory", f{"d/": ""}, "*** Delete File: d"), "the built-in passes its runtime's error on"),
		other(body("update crlf file", f{"a.txt": "one\r\ntwo\r\n"}, "*** Update File: a.txt", "@@", " one", "-two", "+2"), "line endings are kept"),
		other(body("same file twice", a, "*** Update File: a.txt", "@@", "-one", "+1", "*** Update File: a.txt", "@@", "-two", "+2"), "the built-in loses the first change"),
		other(body("move onto itself", a, "*** Update File: a.txt", "*** Move to: a.txt", "@@", "-one", "+1"), "the built-in deletes the file"),
		other(body("end of file", f{"a.txt": "x\ny\nx\ny\n"}, "*** Update File: a.txt", "@@", " x", "-y", "+z", "*** End of File"), "the built-in does not see the mark"),
	}
}
