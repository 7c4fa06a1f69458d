package gateway

import (
	"bytes"
	"encoding/base64"
	"errors"
	"image"
	_ "image/gif" // decoders for IsPicture
	_ "image/jpeg"
	_ "image/png"
	"mime"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"unicode/utf8"
)

// checkFile looks at a part that is a file. One that names a file becomes parts with
// the content that the file has in the session's sandbox; OpenCode would read it from
// its own machine. One that carries its content passes if models can be given it: what
// a provider refuses would make every later turn of the session fail. All others are
// refused.
func checkFile(c *check, part map[string]any) ([]map[string]any, *Error) {
	if source, ok := part["source"].(map[string]any); ok && source["type"] == "resource" {
		return nil, &Error{Status: 400, Code: "FILE_REFUSED", Message: "a file part names a resource of an MCP server", Hint: "attach the content as a data: URL without source"}
	}
	link, _ := part["url"].(string)
	switch strings.ToLower(scheme(link)) {
	case "data:":
		if err := checkData(part, link); err != nil {
			return nil, err
		}
		return []map[string]any{part}, nil
	case "file:":
		if c.attach == nil {
			break
		}
		file, err := parseFile(part, link)
		if err != nil {
			return nil, err
		}
		parts, failed := c.attach(c.ctx, c.session, file)
		var refused *Error
		switch {
		case errors.As(failed, &refused):
			return nil, refused
		case failed != nil:
			return nil, &Error{Status: 502, Code: "FILE_UNREAD", Message: "the file " + clip(file.Path, 200) + " could not be read from the session's sandbox", Hint: "try again, or ask for it in words", Err: failed}
		}
		for _, p := range parts {
			if p["type"] == "file" && part["source"] != nil {
				p["source"] = part["source"]
			}
			if p["type"] == "file" && part["id"] != nil && len(parts) == 1 {
				p["id"] = part["id"]
			}
		}
		return parts, nil
	}
	return nil, &Error{Status: 400, Code: "FILE_REFUSED", Message: "a file part names something elsewhere (" + scheme(link) + ") instead of carrying its content",
		Hint: "name a file of the sandbox by a file: URL, or attach the content as a data: URL"}
}

// parseFile reads a file: URL, whose query may say which lines are meant.
func parseFile(part map[string]any, link string) (File, *Error) {
	u, err := url.Parse(link)
	if err != nil || u.Opaque != "" || (u.Host != "" && u.Host != "localhost") || !path.IsAbs(u.Path) || len(u.Path) > 4095 || strings.ContainsRune(u.Path, 0) || !utf8.ValidString(u.Path) {
		return File{}, &Error{Status: 400, Code: "FILE_REFUSED", Message: "a file part's URL names no file", Hint: "send file:///home/user/project/… as the client does for @"}
	}
	f := File{Path: path.Clean(u.Path)}
	f.Mime, _ = part["mime"].(string)
	f.Filename, _ = part["filename"].(string)
	for name, to := range map[string]*int{"start": &f.Start, "end": &f.End} {
		s := u.Query().Get(name)
		if s == "" {
			continue
		}
		if *to, err = strconv.Atoi(s); err != nil || *to < 0 || *to > 1<<31-1 {
			return File{}, badBody("a file part's URL has a "+name+" that is no line number", "leave it out")
		}
	}
	return f, nil
}

// pictures are the kinds of images that all providers take.
var pictures = map[string]bool{"image/png": true, "image/jpeg": true, "image/gif": true, "image/webp": true}

// checkData looks at a data: URL and writes it anew, as what its content is.
func checkData(part map[string]any, link string) *Error {
	refused := func(message, hint string) *Error {
		return &Error{Status: 400, Code: "FILE_REFUSED", Message: message, Hint: hint}
	}
	head, data, ok := strings.Cut(link[len("data:"):], ",")
	if !ok {
		return refused("a file part's data: URL has no content", "send data:<type>;base64,<content>")
	}
	content, err := decodeData(head, data)
	if err != nil {
		return refused("a file part's data: URL cannot be decoded", "send it in base64")
	}
	said, _ := part["mime"].(string)
	if said == "" {
		said, _, _ = strings.Cut(head, ";")
	}
	kind, _, err := mime.ParseMediaType(said)
	if err != nil {
		kind = ""
	}
	found, _, _ := mime.ParseMediaType(http.DetectContentType(content)) // it always gives a good one
	isText := utf8.Valid(content) && strings.IndexByte(string(content), 0) < 0
	switch {
	case pictures[kind] && pictures[found] && IsPicture(content):
		kind = found
	case kind == "application/pdf" && found == kind:
	case (strings.HasPrefix(kind, "audio/") || strings.HasPrefix(kind, "video/")) && !isText:
	case isText:
		kind = "text/plain"
	default:
		return refused("a file part is neither text nor a picture (PNG, JPEG, GIF, WebP), a PDF, sound or film, or its content is not what its type says ("+clip(strings.ToValidUTF8(said, ""), 60)+")",
			"convert it; a file that only commands need can be put into the sandbox instead")
	}
	part["mime"] = kind
	part["url"] = "data:" + kind + ";base64," + base64.StdEncoding.EncodeToString(content)
	return nil
}

// IsPicture says whether OpenCode, which makes large pictures smaller, has a chance to
// decode one. Of WebP only the beginning is looked at.
func IsPicture(content []byte) bool {
	found := http.DetectContentType(content)
	if found == "image/webp" {
		return true
	}
	size, _, err := image.DecodeConfig(bytes.NewReader(content))
	return pictures[found] && err == nil && size.Width > 0 && size.Height > 0
}

func decodeData(head, data string) ([]byte, error) {
	if head == "base64" || strings.HasSuffix(strings.ToLower(head), ";base64") {
		data = strings.Join(strings.Fields(data), "")
		if strings.Contains(data, "%") {
			plain, err := url.PathUnescape(data)
			if err != nil {
				return nil, err
			}
			data = plain
		}
		return base64.RawStdEncoding.DecodeString(strings.TrimRight(strings.NewReplacer("-", "+", "_", "/").Replace(data), "="))
	}
	plain, err := url.PathUnescape(data)
	return []byte(plain), err
}

func scheme(link string) string {
	s, _, ok := strings.Cut(link, ":")
	if !ok || len(s) > 20 {
		return "no scheme"
	}
	return clip(strings.ToValidUTF8(s, ""), 20) + ":"
}
