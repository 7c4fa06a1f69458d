package git

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"

	"github.com/tongs-dev/tongs/sandbox"
)

const (
	maxLine = 4 << 10  // of what git says; the rest of a line is left out
	maxSaid = 16 << 10 // the last lines that are kept
)

// watcher reads what git writes to standard error: progress, in lines that a
// carriage return ends, and everything else.
type watcher struct {
	report func(Progress)
	line   []byte
	said   []byte // lines that are no progress
}

func (w *watcher) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		i := bytes.IndexAny(b, "\r\n")
		part := b
		if i >= 0 {
			part = b[:i]
		}
		w.line = append(w.line, part[:min(len(part), maxLine-len(w.line))]...)
		if i < 0 {
			break
		}
		b = b[i+1:]
		w.end()
	}
	return n, nil
}

func (w *watcher) end() {
	line := string(bytes.TrimSpace(w.line))
	w.line = w.line[:0]
	if line == "" {
		return
	}
	if p, ok := parseProgress(line); ok {
		if w.report != nil {
			w.report(p)
		}
		return
	}
	w.said = append(append(w.said, line...), '\n')
	if over := len(w.said) - maxSaid; over > 0 {
		w.said = w.said[:copy(w.said, w.said[over:])]
	}
}

// last is what git has said that is no progress.
func (w *watcher) last() string {
	w.end()
	return strings.ToValidUTF8(strings.TrimSpace(string(w.said)), "\ufffd")
}

var progressLine = regexp.MustCompile(`^(remote: )?([A-Z][A-Za-z -]{1,40}): +([0-9]{1,3})% \(([0-9]{1,18})/([0-9]{1,18})\)`)

func parseProgress(line string) (Progress, bool) {
	m := progressLine.FindStringSubmatch(line)
	if m == nil {
		return Progress{}, false
	}
	p := Progress{Phase: m[2], Remote: m[1] != ""}
	p.Percent, _ = strconv.Atoi(m[3]) // all digits, and few
	p.Done, _ = strconv.ParseInt(m[4], 10, 64)
	p.Total, _ = strconv.ParseInt(m[5], 10, 64)
	p.Percent = min(p.Percent, 100)
	return p, true
}

// signs are what git and ssh say, in lower case, and what it means. The first that
// is found counts.
var signs = []struct {
	code sandbox.Code
	hint string
	text []string
}{
	{sandbox.CodeNoSpace, "free some space in the sandbox, or set a depth", []string{"no space left on device", "disk quota exceeded"}},
	{sandbox.CodeGitBranchNotFound, "look at the remote's branches and tags", []string{"not found in upstream", "could not find remote branch"}},
	{sandbox.CodeGitNetworkError, "is the host right, and may the sandbox reach it?", []string{
		"could not resolve host", "couldn't resolve host", "unable to look up", "name or service not known", "temporary failure in name resolution",
		"connection refused", "connection timed out", "operation timed out", "network is unreachable", "no route to host", "connection reset",
		"connection closed by", "failed to connect", "couldn't connect", "could not connect", "unable to connect", "empty reply from server",
		"ssl connect", "ssl_", "ssl certificate", "certificate verification failed", "certificate problem", "gnutls_", "returned error: 5", "resolve proxy", "proxy connect"}},
	{sandbox.CodeGitAuthFailed, "give a user and token in the URL, or a key by GIT_SSH_COMMAND", []string{
		"authentication failed", "could not read username", "could not read password", "terminal prompts disabled", "permission denied (", "host key verification failed",
		"invalid credentials", "returned error: 401", "returned error: 403", "access denied"}},
	{sandbox.CodeGitRepositoryNotFound, "is the URL right? A private repository looks so too to those who may not see it", []string{
		"repository not found", "' not found", "does not appear to be a git repository", "not a git repository", "does not exist", "repository not exported", "no such repository", "no such file or directory", "returned error: 404"}},
	{sandbox.CodeGitNetworkError, "try again", []string{"early eof", "remote end hung up", "unexpected disconnect", "rpc failed", "transfer closed"}},
}

// failure makes an error of what git has said. It never shows what the URL has of a
// password.
func failure(said string, exit sandbox.Exit, spec Spec, r remote) error {
	const op = "git checkout"
	if r.text != r.clean {
		said = strings.ReplaceAll(said, r.text, r.clean)
		said = credentials.ReplaceAllString(said, "://")
	}
	// What somebody has called a repository is no sign of anything.
	low := strings.ToLower(said)
	if called := strings.ToLower(strings.TrimRight(r.clean, "/")); called != "" {
		low = strings.ReplaceAll(low, called, "url")
	}
	e := &sandbox.Error{Code: sandbox.CodeGitCloneFailed, Op: op}
	if strings.Contains(low, "repository not exported") {
		low = "repository not exported"
	}
find:
	for _, s := range signs {
		for _, text := range s.text {
			if strings.Contains(low, text) {
				e.Code, e.Hint = s.code, s.hint
				break find
			}
		}
	}
	e.Message = clip(reason(said), 1000)
	if e.Message == "" {
		e.Message = "git ended with status " + strconv.Itoa(exit.ShellCode()) + " and said nothing"
	}
	return e
}

var credentials = regexp.MustCompile(`://[^/\s@]*@`)

// reason picks the lines that say why: those marked as fatal or as an error, else the
// last one.
func reason(said string) string {
	var marked []string
	last := ""
	for line := range strings.Lines(said) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		last = line
		low := strings.ToLower(line)
		if strings.HasPrefix(low, "fatal:") || strings.HasPrefix(low, "error:") || strings.HasPrefix(low, "remote: ") || strings.HasPrefix(low, "ssh:") {
			marked = append(marked, line)
		}
	}
	if len(marked) == 0 {
		return last
	}
	return strings.Join(marked, "; ")
}
