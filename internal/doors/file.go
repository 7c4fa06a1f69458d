package doors

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/tongs-dev/tongs/internal/gateway"
	"github.com/tongs-dev/tongs/sandbox"
)

// Bounds of what is read for one answer.
const (
	maxContent = 16 << 20 // bytes of a file
	maxEntries = 10_000   // of a directory
	maxIgnore  = 256 << 10
	maxPath    = 4095
)

// node is OpenCode's FileNode.
type node struct {
	Name     string `json:"name"`
	Path     string `json:"path"`     // relative to the project; a directory's ends in /
	Absolute string `json:"absolute"` // of a directory too without the /
	Type     string `json:"type"`     // "file" or "directory"
	Ignored  bool   `json:"ignored"`
}

// content is OpenCode's FileContent.
type content struct {
	Type     string `json:"type"` // "text" or "binary"
	Content  string `json:"content"`
	Encoding string `json:"encoding,omitempty"` // "base64"
	MimeType string `json:"mimeType,omitempty"`
}

// inside resolves a path of a client's against the project, and refuses one that
// leads out of it. Links are followed, but only in the sandbox.
func (d *Doors) inside(p string) (string, error) {
	if strings.ContainsRune(p, 0) || len(p) > maxPath {
		return "", badInput("the path has a NUL byte or is longer than 4,095 bytes", "send the path of a file in the project")
	}
	abs := path.Clean(p)
	if !path.IsAbs(abs) {
		abs = path.Join(d.cfg.Directory, abs)
	}
	if abs != d.cfg.Directory && !strings.HasPrefix(abs, d.cfg.Directory+"/") {
		return "", &gateway.Error{Status: http.StatusBadRequest, Code: "OUTSIDE_PROJECT", Message: "the path leads out of the project", Hint: "send a path inside " + d.cfg.Directory}
	}
	return abs, nil
}

// relative is a path as OpenCode shows it.
func (d *Doors) relative(abs string) string {
	return strings.TrimPrefix(strings.TrimPrefix(abs, d.cfg.Directory), "/")
}

// oneQuery returns a parameter that has to be there once.
func oneQuery(a *asked, name string) (string, error) {
	v := a.URL.Query()[name]
	if len(v) != 1 {
		return "", badInput("the query has to have "+name+" once", "see GET /doc")
	}
	return v[0], nil
}

// listDirectory answers GET /file.
func (d *Doors) listDirectory(a *asked) (any, error) {
	p, err := oneQuery(a, "path")
	if err != nil {
		return nil, err
	}
	if dir, ok := d.above(a.Request); ok {
		return d.listAbove(dir, p), nil
	}
	abs, err := d.inside(p)
	if err != nil {
		return nil, err
	}
	nodes := []node{}
	if a.box == nil {
		if abs != d.cfg.Directory {
			return nil, &gateway.Error{Status: http.StatusNotFound, Code: "FILE_NOT_FOUND", Message: "the empty project has no directories", Hint: "open a session first"}
		}
		return nodes, nil
	}
	rules, err := d.ignoreRules(a)
	if err != nil {
		return nil, err
	}
	opts := sandbox.ListOptions{Hidden: true, Limit: 1000}
	for count := 0; ; {
		page, err := a.box.ListFiles(a.ctx, abs, opts)
		if err != nil {
			return nil, err
		}
		for _, e := range page.Entries {
			if count++; count > maxEntries {
				break
			}
			if n, ok := d.node(abs, e); ok {
				n.Ignored = rules.match(strings.TrimSuffix(n.Path, "/"), n.Type == "directory")
				nodes = append(nodes, n)
			}
		}
		if page.Next == "" || count > maxEntries || len(page.Entries) == 0 {
			if page.Next != "" || count > maxEntries {
				a.truncated()
			}
			break
		}
		opts.Cursor = page.Next
	}
	slices.SortStableFunc(nodes, func(x, y node) int {
		if x.Type != y.Type {
			return strings.Compare(x.Type, y.Type) // directory before file
		}
		return collate(x.Path, y.Path)
	})
	return nodes, nil
}

// node makes one of an entry, if the entry is what a listing of that directory can
// have: links and devices are not shown, as OpenCode does not.
func (d *Doors) node(dir string, e sandbox.FileInfo) (node, bool) {
	if e.Name == "" || e.Name == "." || e.Name == ".." || len(e.Name) > 255 || strings.ContainsAny(e.Name, "/\x00") || !utf8.ValidString(e.Name) {
		return node{}, false
	}
	abs := path.Join(dir, e.Name)
	n := node{Name: e.Name, Path: d.relative(abs), Absolute: abs}
	switch e.Type {
	case sandbox.TypeDirectory:
		n.Type, n.Path = "directory", n.Path+"/"
	case sandbox.TypeFile:
		n.Type = "file"
	default:
		return node{}, false
	}
	return n, true
}

// ignoreRules reads the project's .gitignore and .ignore, those at its top only, as OpenCode does.
func (d *Doors) ignoreRules(a *asked) (ignoreRules, error) {
	var rules ignoreRules
	for _, name := range []string{".gitignore", ".ignore"} {
		data, _, err := d.read(a.ctx, a.box, path.Join(d.cfg.Directory, name), maxIgnore)
		if a.ctx.Err() != nil {
			return nil, a.ctx.Err()
		}
		if err != nil {
			continue // there is none, or it is no file
		}
		rules = append(rules, parseIgnore(string(data))...)
	}
	return rules, nil
}

// read returns at most limit bytes of a file, and whether that is not all.
func (d *Doors) read(ctx context.Context, box *sandbox.Client, p string, limit int64) (data []byte, more bool, err error) {
	r, err := box.OpenFile(ctx, p, sandbox.ReadOptions{Length: limit + 1})
	if err != nil {
		return nil, false, err
	}
	defer r.Close()
	data, err = io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, false, err
	}
	if int64(len(data)) > limit {
		return data[:limit], true, nil
	}
	return data, false, nil
}

// readContent answers GET /file/content.
func (d *Doors) readContent(a *asked) (any, error) {
	p, err := oneQuery(a, "path")
	if err != nil {
		return nil, err
	}
	abs, err := d.inside(p)
	if err != nil {
		return nil, err
	}
	if a.box == nil {
		return content{Type: "text"}, nil // as OpenCode says of a file that is not there
	}
	data, more, err := d.read(a.ctx, a.box, abs, maxContent)
	switch {
	case errors.Is(err, &sandbox.Error{Code: sandbox.CodeFileNotFound}):
		return content{Type: "text"}, nil
	case err != nil:
		return nil, err
	case more:
		return nil, &gateway.Error{Status: http.StatusRequestEntityTooLarge, Code: "FILE_TOO_LARGE", Message: "the file is larger than 16 MiB", Hint: "let a command in the session cut it"}
	}
	if bytes.IndexByte(data, 0) < 0 && utf8.Valid(data) {
		return content{Type: "text", Content: trim(string(data))}, nil
	}
	return content{Type: "binary", Content: base64.StdEncoding.EncodeToString(data), Encoding: "base64", MimeType: mimeOf(abs)}, nil
}

// trim takes away at both ends what JavaScript's trim does.
func trim(s string) string {
	return strings.TrimFunc(s, func(c rune) bool { return unicode.IsSpace(c) && c != 0x85 || c == 0xFEFF })
}

// mimes are the types of files that are not text.
var mimes = map[string]string{
	".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp", ".bmp": "image/bmp",
	".ico": "image/vnd.microsoft.icon", ".avif": "image/avif", ".tif": "image/tiff", ".tiff": "image/tiff", ".svg": "image/svg+xml",
	".pdf": "application/pdf", ".zip": "application/zip", ".gz": "application/gzip", ".tar": "application/x-tar", ".7z": "application/x-7z-compressed",
	".wasm": "application/wasm", ".jar": "application/java-archive", ".mp3": "audio/mpeg", ".wav": "audio/wav", ".ogg": "audio/ogg",
	".mp4": "video/mp4", ".webm": "video/webm", ".ttf": "font/ttf", ".otf": "font/otf", ".woff": "font/woff", ".woff2": "font/woff2",
}

func mimeOf(p string) string {
	if m, ok := mimes[strings.ToLower(path.Ext(p))]; ok {
		return m
	}
	return "application/octet-stream"
}

// clip cuts a text of a stranger's.
func clip(s string, n int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
