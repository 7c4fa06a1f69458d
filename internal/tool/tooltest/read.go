package tooltest

import "strings"

// Pictures of one pixel: OpenCode drops what it can't decode.
const (
	tinyPNG = "\x89\x50\x4e\x47\x0d\x0a\x1a\x0a\x00\x00\x00\x0d\x49\x48\x44\x52\x00\x00\x00\x01\x00\x00\x00\x01\x08\x02\x00\x00\x00\x90\x77\x53\xde\x00\x00\x00\x0c\x49\x44\x41\x54\x78\x9c\x63\xf8\xcf\xc0\x00\x00\x03\x01\x01\x00\xc9\xfe\x92\xef\x00\x00\x00\x00\x49\x45\x4e\x44\xae\x42\x60\x82"
	tinyGIF = "GIF89a\x01\x00\x01\x00\x80\x00\x00\xff\xff\xff\x00\x00\x00!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"
)

func numbered(n int) string {
	var b strings.Builder
	for i := 1; i <= n; i++ {
		b.WriteString("line " + strings.Repeat("x", i%7) + "\n")
	}
	return b.String()
}

// ReadCases are those of read.
func ReadCases() []Case {
	read := func(name string, files f, args m) Case {
		if args["filePath"] == nil {
			args["filePath"] = "{P}/a.txt"
		}
		return Case{Name: name, Files: files, Tool: "read", Args: args}
	}
	text := f{"a.txt": "one\ntwo\nthree\n"}
	return []Case{
		read("plain", text, m{}),
		read("no newline at end", f{"a.txt": "one\ntwo"}, m{}),
		read("empty", f{"a.txt": ""}, m{}),
		read("only newline", f{"a.txt": "\n"}, m{}),
		read("offset", text, m{"offset": 2}),
		read("limit", text, m{"limit": 1}),
		read("offset and limit", text, m{"offset": 2, "limit": 1}),
		read("offset past end", text, m{"offset": 9}),
		read("offset zero", text, m{"offset": 0}),
		read("limit zero", text, m{"limit": 0}),
		read("crlf", f{"a.txt": "one\r\ntwo\r\n"}, m{}),
		read("lone cr", f{"a.txt": "one\rtwo\nthree\r"}, m{}),
		read("bom", f{"a.txt": "\ufeffone\ntwo\n"}, m{}),
		read("long line", f{"a.txt": strings.Repeat("ab", 1500) + "\nnext\n"}, m{}),
		read("long line of astral characters", f{"a.txt": "x" + strings.Repeat("😀", 999) + "é" + strings.Repeat("z", 30) + "\n"}, m{}),
		read("many lines", f{"a.txt": numbered(2500)}, m{}),
		read("many bytes", f{"a.txt": strings.Repeat(strings.Repeat("y", 99)+"\n", 900)}, m{}),
		read("many bytes from offset", f{"a.txt": strings.Repeat(strings.Repeat("y", 99)+"\n", 900)}, m{"offset": 300}),
		read("exactly 2000 lines", f{"a.txt": numbered(2000)}, m{}),
		read("relative path", text, m{"filePath": "a.txt"}),
		read("missing", text, m{"filePath": "{P}/zzz"}),
		read("missing, one like it", text, m{"filePath": "{P}/a.tx"}),
		read("missing, upper case", text, m{"filePath": "{P}/A.TXT"}),
		read("missing in missing directory", text, m{"filePath": "{P}/no/such"}),
		read("control characters", f{"a.txt": "\x01\x02\x03\x04ab"}, m{}),
		read("nul", f{"a.txt": "ab\x00cd"}, m{}),
		read("binary by name", f{"a.zip": "text"}, m{"filePath": "{P}/a.zip"}),
		read("invalid utf-8", f{"a.txt": "a\xffb\xe2\x82c\xf0\x9f\x98\n"}, m{}),
		read("png", f{"a.png": tinyPNG}, m{"filePath": "{P}/a.png"}),
		read("png by content", f{"a.txt": tinyPNG}, m{}),
		read("gif named jpg", f{"a.jpg": tinyGIF}, m{"filePath": "{P}/a.jpg"}),
		read("pdf", f{"a.pdf": "%PDF-1.4\n"}, m{"filePath": "{P}/a.pdf"}),
		read("svg", f{"a.svg": "<svg></svg>\n"}, m{"filePath": "{P}/a.svg"}),
		read("directory", f{"d/b.txt": "", "d/a.txt": "", "d/sub/x": "", "d/B": "", "d/_u": "", "d/.h": "", "d/10": "", "d/9": "", "d/-z": ""}, m{"filePath": "{P}/d"}),
		read("directory with marks", f{"d/a b": "", "d/a-b": "", "d/a_b": "", "d/a.b": "", "d/ab": "", "d/Ab": "", "d/aB": "", "d/a+b": "", "d/@a": "", "d/#a": "", "d/(a)": "", "d/~a": ""}, m{"filePath": "{P}/d"}),
		read("directory offset limit", f{"d/a": "", "d/b": "", "d/c": ""}, m{"filePath": "{P}/d", "offset": 2, "limit": 1}),
		read("directory offset past end", f{"d/a": ""}, m{"filePath": "{P}/d", "offset": 5}),
		read("empty directory", f{"d/": ""}, m{"filePath": "{P}/d"}),
		read("directory with links", f{"d/x/y": "", "d/l": "->x", "d/broken": "->nowhere"}, m{"filePath": "{P}/d"}),
		read("project", text, m{"filePath": "{P}"}),
		read("outside", text, m{"filePath": "/etc/hostname"}),
		read("outside directory missing", text, m{"filePath": "/etc/nothing-there-at-all"}),
		read("nested instructions", f{"d/e/a.txt": "x\n", "d/AGENTS.md": "Do this.\n", "d/e/CLAUDE.md": "Do that."}, m{"filePath": "{P}/d/e/a.txt"}),
		read("instructions themselves", f{"d/AGENTS.md": "Do this.\n"}, m{"filePath": "{P}/d/AGENTS.md"}),
		{
			Name: "text named png", Files: f{"a.png": "no image\n"}, Tool: "read", Args: m{"filePath": "{P}/a.png"},
			Differs: "an attachment that is no image makes the session's later requests fail",
		},
		{
			Name: "empty png", Files: f{"a.png": ""}, Tool: "read", Args: m{"filePath": "{P}/a.png"},
			Differs: "an attachment that is no image makes the session's later requests fail",
		},
		{
			Name: "link to outside", Files: f{"l": "->/etc/hostname"}, Tool: "read", Args: m{"filePath": "{P}/l"},
			Differs: "where a link leads is asked about, too",
		},
	}
}

func writeCases() []Case {
	write := func(name string, files f, args m) Case {
		if args["filePath"] == nil {
			args["filePath"] = "{P}/a.txt"
		}
		return Case{Name: name, Files: files, Tool: "write", Args: args}
	}
	return []Case{
		write("new", nil, m{"content": "one\n"}),
		write("new, empty", nil, m{"content": ""}),
		write("new in new directories", nil, m{"filePath": "{P}/x/y/z.txt", "content": "one"}),
		write("replace", f{"a.txt": "one\ntwo\nthree\n"}, m{"content": "one\n2\nthree\n"}),
		write("replace all of it", f{"a.txt": "a\nb\nc\nd\n"}, m{"content": "w\nb\nx\ny\nd\nz"}),
		write("same", f{"a.txt": "one\n"}, m{"content": "one\n"}),
		write("make empty", f{"a.txt": "one\ntwo"}, m{"content": ""}),
		write("bom kept", f{"a.txt": "\ufeffone\n"}, m{"content": "two\n"}),
		write("bom given", nil, m{"content": "\ufefftwo\n"}),
		write("relative", nil, m{"filePath": "r.txt", "content": "x"}),
		write("indented", f{"a.txt": "    a\n      b\n    c\n"}, m{"content": "    a\n      B\n    c\n"}),
		write("dollars and unicode", nil, m{"content": "$& $1 $$ 😀 é\r\n\ttab"}),
		write("far apart", f{"a.txt": numbered(60)}, m{"content": strings.Replace(numbered(60), "line xx\n", "changed\n", 5)}),
		write("moved block", f{"a.txt": "a\nb\nc\nd\ne\nf\ng\n"}, m{"content": "d\ne\na\nb\nc\nf\ng\n"}),
		write("repeated lines", f{"a.txt": "x\n\nx\n\nx\n"}, m{"content": "x\n\ny\n\nx\n\nx\n\n"}),
		write("link", f{"t.txt": "old\n", "l": "->t.txt"}, m{"filePath": "{P}/l", "content": "new\n"}),
		{Name: "directory", Files: f{"d/": ""}, Tool: "write", Args: m{"filePath": "{P}/d", "content": "x"}, Differs: "a clearer error"},
	}
}
