package preview_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/tongs-dev/tongs/internal/preview"
	"github.com/tongs-dev/tongs/sandbox"
)

// hostOf is the host of a URL of ours.
func hostOf(url string) string { return strings.SplitN(url, "/", 4)[2] }

func TestExposedPorts(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "previews.json")
	shut := func(c *preview.Config) { c.Open, c.File, c.Domain = false, file, "preview.example.com" }
	f := newFront(t, shut)
	f.serve("ses-abc", 3000, func(w http.ResponseWriter, r *http.Request) {})
	f.serve("ses-abc", 3001, func(w http.ResponseWriter, r *http.Request) {})

	if _, ok := f.URL("ses_abc", 3000); ok {
		t.Error("there is a URL without a token on a front that isn't open")
	}
	want := func(f *front, host string, status int) {
		t.Helper()
		if resp, body := f.get(host); resp.StatusCode != status {
			t.Errorf("%s: %d %s", host, resp.StatusCode, body)
		}
	}
	want(f, "3000-ses-abc.preview.example.com", 404)
	e, err := f.Expose("ses_ABC", 3000, preview.ExposeOptions{Name: "web"})
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(f.address, ":")
	if e.URL != "http://3000-ses-abc-"+e.Token+".preview.example.com:"+port || len(e.Token) != 26 {
		t.Errorf("exposed as %+v", e)
	}
	want(f, hostOf(e.URL), 200)
	want(f, strings.ToUpper(hostOf(e.URL)), 200)
	want(f, "3000-ses-abc-"+e.Token+".localhost", 200)
	want(f, "3001-ses-abc-"+e.Token+".localhost", 404)
	want(f, "3000-ses-abd-"+e.Token+".localhost", 404)
	want(f, "3000-ses-abc-"+strings.Repeat("a", 26)+".localhost", 404)
	want(f, "3000-ses-abc-.localhost", 400)

	again, err := f.Expose("ses_abc", 3000, preview.ExposeOptions{})
	if err != nil || again != e {
		t.Errorf("exposed again: %+v, %v", again, err)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", st, err)
	}
	other := newFront(t, shut)
	other.serve("ses-abc", 3000, func(w http.ResponseWriter, r *http.Request) {})
	want(other, hostOf(e.URL), 200)
	if all := other.List("ses_abc"); len(all) != 1 || all[0].Token != e.Token || all[0].Name != "web" || all[0].URL == "" {
		t.Errorf("after a restart: %+v", all)
	}
	if !other.Valid("ses_abc", 3000, e.Token) || other.Valid("ses_abc", 3000, "") || other.Valid("ses_abc", 1, "") {
		t.Error("the token is judged wrongly")
	}

	if err := f.Unexpose("ses_abc", 3000); err != nil {
		t.Fatal(err)
	}
	want(f, hostOf(e.URL), 404)
	if err := f.Unexpose("ses_abc", 3000); sandbox.CodeOf(err) != sandbox.CodeInvalidPort {
		t.Errorf("unexposed twice: %v", err)
	}
	fresh, err := f.Expose("ses_abc", 3000, preview.ExposeOptions{})
	if err != nil || fresh.Token == e.Token {
		t.Errorf("after revocation: %+v, %v", fresh, err)
	}
	if err := f.Forget("ses_abc"); err != nil || len(f.List("ses_abc")) != 0 {
		t.Errorf("forgotten: %v, %v", err, f.List("ses_abc"))
	}
}

func TestExposeChecks(t *testing.T) {
	t.Parallel()
	f := newFront(t, func(c *preview.Config) { c.Open, c.Reserved = false, []int{3129} })
	for _, c := range []struct {
		box   string
		port  int
		opts  preview.ExposeOptions
		wants sandbox.Code
	}{
		{"here", 0, preview.ExposeOptions{}, sandbox.CodeInvalidPort},
		{"here", 65536, preview.ExposeOptions{}, sandbox.CodeInvalidPort},
		{"here", 3129, preview.ExposeOptions{}, sandbox.CodeInvalidPort},
		{"", 80, preview.ExposeOptions{}, sandbox.CodeInvalidArgument},
		{"a.b", 80, preview.ExposeOptions{}, sandbox.CodeInvalidArgument},
		{strings.Repeat("a", 40), 8080, preview.ExposeOptions{}, sandbox.CodeInvalidArgument},
		{"here", 80, preview.ExposeOptions{Token: "short"}, sandbox.CodeInvalidArgument},
		{"here", 80, preview.ExposeOptions{Token: "sixteen-of-these"}, sandbox.CodeInvalidArgument},
		{"here", 80, preview.ExposeOptions{Token: strings.Repeat("a", 27)}, sandbox.CodeInvalidArgument},
		{"here", 80, preview.ExposeOptions{Name: strings.Repeat("a", 129)}, sandbox.CodeInvalidArgument},
	} {
		if _, err := f.Expose(c.box, c.port, c.opts); sandbox.CodeOf(err) != c.wants {
			t.Errorf("%+v: %v", c, err)
		}
	}
	token := strings.Repeat("x", 16)
	if e, err := f.Expose("here", 80, preview.ExposeOptions{Token: token}); err != nil || e.Token != token {
		t.Errorf("%+v, %v", e, err)
	}
	if _, err := f.Expose("here", 81, preview.ExposeOptions{Token: token}); sandbox.CodeOf(err) != sandbox.CodeAlreadyExists {
		t.Errorf("the same token twice: %v", err)
	}
	for port := 1000; ; port++ {
		if _, err := f.Expose("here", port, preview.ExposeOptions{}); err != nil {
			if sandbox.CodeOf(err) != sandbox.CodeTooManyConnections || port != 1000+preview.MaxExposures-1 {
				t.Errorf("port %d: %v", port, err)
			}
			break
		}
	}
}

func TestOpenFrontHasPlainURLs(t *testing.T) {
	t.Parallel()
	f := newFront(t, nil)
	f.serve("here", 3000, func(w http.ResponseWriter, r *http.Request) {})
	url, ok := f.URL("Here", 3000)
	if !ok || !strings.HasPrefix(url, "http://3000-here.localhost:") {
		t.Errorf("%q, %v", url, ok)
	}
	if resp, body := f.get(hostOf(url)); resp.StatusCode != 200 {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	e, err := f.Expose("here", 3000, preview.ExposeOptions{Token: "mine"})
	if err != nil {
		t.Fatal(err)
	}
	if resp, body := f.get(hostOf(e.URL)); resp.StatusCode != 200 || !strings.Contains(e.URL, "3000-here-mine.") {
		t.Errorf("%s: %d %s", e.URL, resp.StatusCode, body)
	}
}

func TestDamagedFileIsNamed(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "previews.json")
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := preview.New(preview.Config{Boxes: &boxes{}, Listen: "127.0.0.1:1", File: file})
	if err == nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("%v", err)
	}
}

func FuzzOwns(f *testing.F) {
	for _, host := range []string{"3000-a.localhost:8787", "3000-a-b_c.preview.test.", "1-a.b.localhost", "99999-a.localhost", "03-a.localhost", "localhost", "[::1]:1", "3000-a.localhost:x", "-a.localhost", "1-.localhost"} {
		f.Add(host)
	}
	h, err := preview.New(preview.Config{Boxes: &boxes{}, Listen: ":1", Domain: "preview.test"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, host string) {
		if !h.Owns(host) {
			return
		}
		digits, _, ok := strings.Cut(host, "-")
		port, err := strconv.Atoi(digits)
		if !ok || err != nil || port < 1 || port > 65535 || strings.ContainsAny(host, "/@ \x00") {
			t.Errorf("%q is taken for a preview's", host)
		}
		lower := strings.ToLower(host)
		if !strings.Contains(lower, ".localhost") && !strings.Contains(lower, ".preview.test") {
			t.Errorf("%q is under no domain of ours", host)
		}
	})
}
