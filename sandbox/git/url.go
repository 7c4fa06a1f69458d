package git

import (
	"net/url"
	"path"
	"strings"

	"github.com/tongs-dev/tongs/sandbox"
)

// maxURL bounds a URL, in bytes.
const maxURL = 4096

// remote is a checked URL.
type remote struct {
	text  string // as git gets it
	clean string // without user and password
	last  string // its path
	path  bool   // it is a path in the sandbox
}

func badURL(why string) error {
	return sandbox.Errf(sandbox.CodeInvalidGitURL, "git checkout", why, `use https://host/path, ssh://host/path, git://host/path, user@host:path, or a path that begins with "/" or "./"`)
}

// parseURL accepts what git takes for a repository and for nothing else: no option,
// no command (ext::), no descriptor (fd::), no host that ssh would take for an
// option.
func parseURL(text string) (remote, error) {
	switch {
	case text == "":
		return remote{}, badURL("no URL is given")
	case len(text) > maxURL:
		return remote{}, badURL("the URL is too long")
	case strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\ufffd' }):
		return remote{}, badURL("the URL holds characters that no URL has")
	case text[0] == '-':
		return remote{}, badURL("the URL begins with a dash")
	case text[0] == '/', strings.HasPrefix(text, "./"), strings.HasPrefix(text, "../"):
		return remote{text: text, clean: text, last: text, path: true}, nil
	}
	if scheme, _, ok := strings.Cut(text, "://"); ok && isWord(scheme) {
		return parseScheme(text)
	}
	return parseSCP(text)
}

func parseScheme(text string) (remote, error) {
	u, err := url.Parse(text)
	if err != nil {
		return remote{}, badURL("the URL can't be read")
	}
	switch u.Scheme {
	case "https", "http", "ssh", "git":
		if u.Hostname() == "" || u.Hostname()[0] == '-' || strings.ContainsAny(u.Host, " %") {
			return remote{}, badURL("the URL names no host")
		}
		if user := u.User.Username(); user != "" && user[0] == '-' {
			return remote{}, badURL("the user in the URL begins with a dash")
		}
		if u.Path == "" || u.Path == "/" {
			return remote{}, badURL("the URL names no repository")
		}
	case "file":
		if u.Host != "" && u.Host != "localhost" || !path.IsAbs(u.Path) {
			return remote{}, badURL("a file URL names an absolute path: file:///path")
		}
	default:
		return remote{}, badURL("repositories can't be had by " + clip(u.Scheme, 40) + "://")
	}
	r := remote{text: text, clean: text, last: u.Path}
	if _, secret := u.User.Password(); secret || u.User != nil && (u.Scheme == "https" || u.Scheme == "http") {
		without := *u
		if without.User = nil; u.Scheme == "ssh" {
			without.User = url.User(u.User.Username())
		}
		r.clean = without.String()
	}
	return r, nil
}

// parseSCP reads "user@host:path". A user is needed, so that a word with a colon
// is no host.
func parseSCP(text string) (remote, error) {
	user, rest, ok := strings.Cut(text, "@")
	host, p, colon := strings.Cut(rest, ":")
	if !ok || !colon || !isWord(user) || !isWord(host) || p == "" || p[0] == '-' || p[0] == ':' {
		return remote{}, badURL("this is no URL of a repository")
	}
	return remote{text: text, clean: text, last: p}, nil
}

// isWord says whether a text holds letters, digits, '.', '_', '-' and '+' only, and
// does not begin with a dash.
func isWord(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("._-+", rune(c)) {
			return false
		}
	}
	return s != "" && s[0] != '-'
}

// name is the directory that a checkout gets by default.
func (r remote) name() string {
	n := strings.TrimSuffix(strings.TrimRight(r.last, "/"), ".git")
	n = strings.TrimRight(n, "/")
	if i := strings.LastIndexAny(n, "/:"); i >= 0 {
		n = n[i+1:]
	}
	if n == "." || n == ".." || n == "" || n[0] == '-' || len(n) > 200 || strings.ContainsRune(n, 0) {
		return ""
	}
	return n
}

// validBranch is what git check-ref-format allows for a branch, or nearly.
func validBranch(b string) bool {
	if len(b) > 1024 || b[0] == '-' || b[0] == '/' || b == "@" || strings.HasSuffix(b, "/") || strings.HasSuffix(b, ".") ||
		strings.Contains(b, "..") || strings.Contains(b, "//") || strings.Contains(b, "@{") || strings.ContainsAny(b, " ~^:?*[\\") {
		return false
	}
	for part := range strings.SplitSeq(b, "/") {
		if strings.HasPrefix(part, ".") || strings.HasSuffix(part, ".lock") {
			return false
		}
	}
	return !strings.ContainsFunc(b, func(r rune) bool { return r < ' ' || r == 0x7f })
}
