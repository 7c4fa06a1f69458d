package sandbox

import (
	"bytes"
	"path"
	"strings"
	"sync"
	"unicode/utf8"
)

// DetectContent tells a text from other content and gives its MIME type: by the
// content where that is plain, else by the name. data is the file's beginning;
// whole says that it is all of it. What has a NUL byte or is no UTF-8 is binary;
// a character that the end of a part cuts in two is not held against it.
func DetectContent(name string, data []byte, whole bool) (binary bool, mime string) {
	binary = bytes.IndexByte(data, 0) >= 0 || !validText(data, whole)
	for _, m := range magics {
		if bytes.HasPrefix(data, []byte(m.magic)) {
			return binary, m.mime
		}
	}
	if len(data) >= 12 && string(data[:4]) == "RIFF" && string(data[8:12]) == "WEBP" {
		return binary, "image/webp"
	}
	if binary {
		return true, "application/octet-stream"
	}
	if mime, ok := textTypes()[strings.ToLower(path.Ext(name))]; ok {
		return false, mime
	}
	return false, "text/plain"
}

func validText(data []byte, whole bool) bool {
	if !whole {
		for range utf8.UTFMax - 1 {
			if r, n := utf8.DecodeLastRune(data); r != utf8.RuneError || n != 1 {
				break
			}
			data = data[:len(data)-1]
		}
	}
	return utf8.Valid(data)
}

var magics = []struct{ magic, mime string }{
	{"\x89PNG\r\n\x1a\n", "image/png"}, {"\xff\xd8\xff", "image/jpeg"}, {"GIF8", "image/gif"}, {"%PDF-", "application/pdf"},
	{"PK\x03\x04", "application/zip"}, {"\x1f\x8b", "application/gzip"}, {"\x28\xb5\x2f\xfd", "application/zstd"},
	{"\x7fELF", "application/x-executable"},
}

var textTypes = sync.OnceValue(func() map[string]string {
	return map[string]string{
		".html": "text/html", ".htm": "text/html", ".css": "text/css", ".js": "text/javascript", ".mjs": "text/javascript",
		".json": "application/json", ".xml": "text/xml", ".svg": "image/svg+xml", ".md": "text/markdown", ".csv": "text/csv",
		".py": "text/x-python", ".sh": "text/x-shellscript", ".c": "text/x-c", ".h": "text/x-c",
	}
})
