package git

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tongs-dev/tongs/sandbox"
)

func TestURLs(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct{ clean, name string }{
		"https://example.com/a/b.git":               {"https://example.com/a/b.git", "b"},
		"https://user:secret@example.com/a/b":       {"https://example.com/a/b", "b"},
		"https://token@example.com:8443/a/b/":       {"https://example.com:8443/a/b/", "b"},
		"http://127.0.0.1:3000/x.git":               {"http://127.0.0.1:3000/x.git", "x"},
		"ssh://git@example.com/~me/r.git":           {"ssh://git@example.com/~me/r.git", "r"},
		"git://example.com/r":                       {"git://example.com/r", "r"},
		"file:///srv/r.git":                         {"file:///srv/r.git", "r"},
		"git@example.com:group/r.git":               {"git@example.com:group/r.git", "r"},
		"/srv/git/r":                                {"/srv/git/r", "r"},
		"../r/.git":                                 {"../r/.git", "r"},
		"./.":                                       {"./.", ""},
		"https://example.com/" + "%2e%2e":           {"https://example.com/%2e%2e", ""},
		"https://example.com/a/%2Dupload-pack%20x/": {"https://example.com/a/%2Dupload-pack%20x/", ""},
	} {
		r, err := parseURL(text)
		if err != nil || r.clean != want.clean || r.name() != want.name {
			t.Errorf("%s: %+v named %q, %v", text, r, r.name(), err)
		}
	}
	for _, text := range []string{
		"", "-u", "--upload-pack=touch x", "ext::sh -c id", "fd::7", "https://", "https://example.com", "https://example.com/", "ssh://-oProxyCommand=id/x",
		"ssh://-l@example.com/x", "-oProxyCommand=id@example.com:x", "git@-oProxyCommand=id:x", "git@example.com:-x", "git@example.com::x", "a@ext::sh", "ftp://example.com/x", "javascript://x/y",
		"https://example.com/a\nb", "https://exa mple.com/a", "file://host/x", "file:x", "word", "host:path", "https://example.com/a\x00", strings.Repeat("/a", 4000),
	} {
		if _, err := parseURL(text); sandbox.CodeOf(err) != sandbox.CodeInvalidGitURL {
			t.Errorf("%.60q: %v", text, err)
		}
	}
}

func TestBranches(t *testing.T) {
	t.Parallel()
	for _, b := range []string{"main", "feature/x", "v1.0", "größe"} {
		if !validBranch(b) {
			t.Errorf("%q is refused", b)
		}
	}
	for _, b := range []string{"-x", "a..b", "a b", "a~1", "a.lock", ".a", "a/", "/a", "a//b", "@", "a@{1}", "a\\b", "a\x00", "a."} {
		if validBranch(b) {
			t.Errorf("%q is accepted", b)
		}
	}
}

func TestProgressIsRead(t *testing.T) {
	t.Parallel()
	var got []Progress
	w := &watcher{report: func(p Progress) { got = append(got, p) }}
	// As it comes: in any pieces.
	for _, piece := range []string{"Cloning into 'x'...\nremote: Counting objects:  50% (1/2)\rremote: Coun", "ting objects: 100% (2/2), done.\nReceiving objects: 100% (2/2), 1.0 KiB | 1.0 KiB/s, done.\r", strings.Repeat("x", 3*maxLine) + "\nfatal: no"} {
		if n, err := w.Write([]byte(piece)); n != len(piece) || err != nil {
			t.Fatal(n, err)
		}
	}
	want := []Progress{{"Counting objects", true, 50, 1, 2}, {"Counting objects", true, 100, 2, 2}, {"Receiving objects", false, 100, 2, 2}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if said := w.last(); !strings.HasPrefix(said, "Cloning into") || !strings.HasSuffix(said, "\nfatal: no") || len(said) > 2*maxLine {
		t.Errorf("%d bytes were said, ending in %.20q", len(said), said[max(0, len(said)-20):])
	}
	for range 1000 {
		_, _ = w.Write([]byte("a line of no meaning at all, and many of them\n"))
	}
	if len(w.said) > maxSaid {
		t.Errorf("%d bytes are kept", len(w.said))
	}
}

func TestFailuresHaveTheirCodes(t *testing.T) {
	t.Parallel()
	for said, want := range map[string]sandbox.Code{
		"fatal: repository 'https://h/x/' not found": sandbox.CodeGitRepositoryNotFound,
		"ERROR: Repository not found.\nfatal: Could not read from remote repository.\n\nPlease make sure you have the correct rights": sandbox.CodeGitRepositoryNotFound,
		"fatal: '/x' does not appear to be a git repository\nfatal: Could not read from remote repository.":                           sandbox.CodeGitRepositoryNotFound,
		"fatal: remote error: access denied or repository not exported: /x":                                                           sandbox.CodeGitRepositoryNotFound,
		"warning: Could not find remote branch x to clone.\nfatal: Remote branch x not found in upstream origin":                      sandbox.CodeGitBranchNotFound,
		"fatal: could not read Username for 'https://h': terminal prompts disabled":                                                   sandbox.CodeGitAuthFailed,
		"git@h: Permission denied (publickey).\nfatal: Could not read from remote repository.":                                        sandbox.CodeGitAuthFailed,
		"fatal: unable to access 'https://h/x/': Could not resolve host: h":                                                           sandbox.CodeGitNetworkError,
		"fatal: unable to access 'https://h/x/': The requested URL returned error: 403":                                               sandbox.CodeGitAuthFailed,
		"fatal: unable to access 'https://h/x/': The requested URL returned error: 502":                                               sandbox.CodeGitNetworkError,
		"ssh: connect to host h port 22: Connection refused\nfatal: Could not read from remote repository.":                           sandbox.CodeGitNetworkError,
		"fatal: write error: No space left on device":                                                                                 sandbox.CodeNoSpace,
		"fatal: something else": sandbox.CodeGitCloneFailed,
		"":                      sandbox.CodeGitCloneFailed,
	} {
		err := failure(said, sandbox.Exit{Code: 128}, Spec{}, remote{})
		if sandbox.CodeOf(err) != want || err.(*sandbox.Error).Message == "" {
			t.Errorf("%q: %v (%s), want %s", said, err, sandbox.CodeOf(err), want)
		}
	}
	r, err := parseURL("https://h/openssl/proxy")
	if err != nil {
		t.Fatal(err)
	}
	if err := failure("fatal: repository 'https://h/openssl/proxy/' not found", sandbox.Exit{Code: 128}, Spec{}, r); sandbox.CodeOf(err) != sandbox.CodeGitRepositoryNotFound {
		t.Errorf("the repository's name misleads: %v", err)
	}
	r, err = parseURL("https://me:hunter2@h/x")
	if err != nil {
		t.Fatal(err)
	}
	err = failure("fatal: unable to access 'https://me:hunter2@h/x/': bad\nfatal: https://me:hunter2@h", sandbox.Exit{Code: 128}, Spec{}, r)
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the password is shown: %v", err)
	}
}

func FuzzParseURL(f *testing.F) {
	for _, s := range []string{"https://a:b@h/x", "git@h:x", "ext::sh", "/a", "--x", "ssh://-x/y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := parseURL(text)
		if err != nil {
			return
		}
		if r.text[0] == '-' || strings.HasPrefix(r.text, "ext::") || strings.HasPrefix(r.text, "fd::") {
			t.Errorf("%q is accepted", text)
		}
		if n := r.name(); strings.ContainsAny(n, "/\x00") || n == ".." || strings.HasPrefix(n, "-") {
			t.Errorf("%q is named %q", text, n)
		}
	})
}

func FuzzProgress(f *testing.F) {
	f.Add([]byte("remote: Counting objects:  50% (1/2)\r\nfatal: x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		w := &watcher{report: func(p Progress) {
			if p.Percent < 0 || p.Percent > 100 || p.Done < 0 || p.Total < 0 || p.Phase == "" {
				t.Errorf("%+v", p)
			}
		}}
		for len(b) > 0 {
			n := min(len(b), 7)
			_, _ = w.Write(b[:n])
			b = b[n:]
		}
		_ = failure(w.last(), sandbox.Exit{}, Spec{}, remote{})
	})
}
