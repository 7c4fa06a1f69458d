package opencode_test

import (
	"encoding/pem"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tongs-dev/tongs/internal/opencode"
)

// npmrc writes the files (by "project", "user", "global") and loads the
// settings with the variables.
func npmrc(t *testing.T, files map[string]string, env ...string) (*opencode.NpmConfig, error) {
	t.Helper()
	root := t.TempDir()
	project, user, global := filepath.Join(root, "project"), filepath.Join(root, "home"), filepath.Join(root, "prefix", "etc")
	for _, d := range []string{filepath.Join(project, "deep", "er"), user, global} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	os.WriteFile(filepath.Join(project, "package.json"), []byte("{}"), 0o644)
	for place, text := range files {
		name := map[string]string{"project": filepath.Join(project, ".npmrc"), "user": filepath.Join(user, ".npmrc"), "global": filepath.Join(global, "npmrc")}[place]
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return opencode.LoadNpmConfig(opencode.NpmSources{
		Env: append([]string{"HOME=" + user, "PREFIX=" + filepath.Dir(global)}, env...),
		Dir: filepath.Join(project, "deep", "er"),
	})
}

func TestNpmRegistry(t *testing.T) {
	t.Parallel()
	all := map[string]string{"project": "registry=https://project.example", "user": "registry = https://user.example/npm", "global": "registry=https://global.example/"}
	without := func(places ...string) map[string]string {
		m := maps.Clone(all)
		for _, p := range places {
			delete(m, p)
		}
		return m
	}
	for _, tc := range []struct {
		name  string
		files map[string]string
		env   []string
		pkg   string
		want  string
		where string
	}{
		{name: "default", want: opencode.DefaultRegistry},
		{name: "global", files: without("project", "user"), want: "https://global.example/", where: "npmrc"},
		{name: "user over global", files: without("project"), want: "https://user.example/npm/", where: "home/.npmrc"},
		{name: "project over user", files: all, want: "https://project.example/", where: "project/.npmrc"},
		{name: "variable over all", files: all, env: []string{"npm_config_registry=https://env.example/"}, want: "https://env.example/", where: "npm_config_registry"},
		{name: "in capitals", files: all, env: []string{"NPM_CONFIG_REGISTRY=https://env.example/x"}, want: "https://env.example/x/", where: "NPM_CONFIG_REGISTRY"},
		{name: "small letters win", env: []string{"NPM_CONFIG_REGISTRY=https://big.example/", "npm_config_registry=https://small.example/"}, want: "https://small.example/", where: "npm_config_registry"},
		{name: "empty variable", env: []string{"npm_config_registry="}, want: opencode.DefaultRegistry},
		{name: "scoped", files: map[string]string{"user": "@acme:registry=https://acme.example/\nregistry=https://other.example/"}, pkg: "@acme/x", want: "https://acme.example/", where: ".npmrc"},
		{name: "other scope", files: map[string]string{"user": "@acme:registry=https://acme.example/"}, pkg: "@other/x", want: opencode.DefaultRegistry},
		{name: "expanded", files: map[string]string{"user": "registry=https://${REG_HOST}/${REG_PATH?}"}, env: []string{"REG_HOST=h.example"}, want: "https://h.example/", where: ".npmrc"},
		{name: "quotes and comments", files: map[string]string{"user": "; first\n# second\nregistry=\"https://q.example/\" \nother=1 ; c\n"}, want: "https://q.example/", where: ".npmrc"},
		{name: "single quotes", files: map[string]string{"user": "registry='https://q.example/'"}, want: "https://q.example/", where: ".npmrc"},
		{name: "after a comment sign", files: map[string]string{"user": "registry=https://q.example/#frag"}, want: "https://q.example/", where: ".npmrc"},
		{name: "windows lines", files: map[string]string{"user": "\ufeffregistry=https://q.example/\r\n"}, want: "https://q.example/", where: ".npmrc"},
		{name: "in a section", files: map[string]string{"user": "[section]\nregistry=https://q.example/"}, want: opencode.DefaultRegistry},
		{name: "last one wins", files: map[string]string{"user": "registry=https://a.example/\nregistry=https://b.example/"}, want: "https://b.example/", where: ".npmrc"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c, err := npmrc(t, tc.files, tc.env...)
			if err != nil {
				t.Fatal(err)
			}
			if tc.pkg == "" {
				tc.pkg = "opencode-linux-x64"
			}
			u, where, err := c.Registry(tc.pkg)
			if err != nil || u.String() != tc.want || !strings.HasSuffix(where, tc.where) {
				t.Errorf("Registry = %v from %q, %v; want %s from …%s", u, where, err, tc.want, tc.where)
			}
		})
	}
}

func TestNpmRefuses(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		files map[string]string
		words string
	}{
		"not a URL":                              {map[string]string{"user": "registry=registry.example"}, ".npmrc"},
		"other scheme":                           {map[string]string{"user": "registry=ftp://registry.example/"}, "http"},
		"unset variable":                         {map[string]string{"user": "registry=https://${NO_SUCH}/"}, "NO_SUCH"},
		"secret of the environment in a project": {map[string]string{"project": "registry=https://evil.example/${OPENAI_API_KEY}/"}, "~/.npmrc"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := npmrc(t, tc.files, "OPENAI_API_KEY=sk-canary")
			if err == nil {
				_, _, err = c.Registry("x")
			}
			wantCode(t, err, opencode.CodeRegistryConfig, tc.words)
			if strings.Contains(err.Error(), "sk-canary") {
				t.Errorf("the error shows a secret: %v", err)
			}
		})
	}
}

func TestNpmAuthorize(t *testing.T) {
	t.Parallel()
	const basic = "Basic bWU6cHc=" // me:pw
	for _, tc := range []struct {
		name, npmrc, url, want string
		place                  string
		env                    []string
	}{
		{name: "token", npmrc: "//r.example/:_authToken=abc", url: "https://r.example/x/-/x-1.tgz", want: "Bearer abc"},
		{name: "token of a variable", npmrc: "//r.example/:_authToken=${MY_TOKEN}", env: []string{"MY_TOKEN=t0k"}, url: "https://r.example/x", want: "Bearer t0k"},
		{name: "unset variable", npmrc: "//r.example/:_authToken=${MY_TOKEN}", url: "https://r.example/x"},
		{name: "longest path", npmrc: "//r.example/:_authToken=short\n//r.example/a/b/:_authToken=long", url: "https://r.example/a/b/x/-/x.tgz", want: "Bearer long"},
		{name: "without slash", npmrc: "//r.example/a:_authToken=abc", url: "https://r.example/a/x", want: "Bearer abc"},
		{name: "port", npmrc: "//r.example:8443/:_authToken=abc", url: "https://r.example:8443/x", want: "Bearer abc"},
		{name: "other port", npmrc: "//r.example:8443/:_authToken=abc", url: "https://r.example/x"},
		{name: "other host", npmrc: "//r.example/:_authToken=abc", url: "https://evil-r.example/x"},
		{name: "other path", npmrc: "//r.example/a/:_authToken=abc", url: "https://r.example/ab/x"},
		{name: "_auth", npmrc: "//r.example/:_auth=bWU6cHc=", url: "https://r.example/x", want: basic},
		{name: "user and password", npmrc: "//r.example/:username=me\n//r.example/:_password=cHc=", url: "https://r.example/x", want: basic},
		{name: "in a variable", env: []string{"npm_config_//r.example/:_authToken=abc"}, url: "https://r.example/x", want: "Bearer abc"},
		{name: "project with npm's variable", place: "project", npmrc: "//r.example/:_authToken=${NPM_TOKEN}", env: []string{"NPM_TOKEN=n"}, url: "https://r.example/x", want: "Bearer n"},
		{name: "project with another variable", place: "project", npmrc: "//r.example/:_authToken=${OPENAI_API_KEY}", env: []string{"OPENAI_API_KEY=n"}, url: "https://r.example/x"},
		{name: "escaped", npmrc: `//r.example/:_authToken=\${X}`, env: []string{"X=1"}, url: "https://r.example/x", want: "Bearer ${X}"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			place := "user"
			if tc.place != "" {
				place = tc.place
			}
			c, err := npmrc(t, map[string]string{place: tc.npmrc}, tc.env...)
			if err != nil {
				t.Fatal(err)
			}
			r := httptest.NewRequest("GET", tc.url, nil)
			c.Authorize(r)
			if got := r.Header.Get("Authorization"); got != tc.want {
				t.Errorf("Authorization %q, want %q", got, tc.want)
			}
		})
	}
}

func TestNpmTransportTrusts(t *testing.T) {
	t.Parallel()
	srv := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(srv.Close)
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}))
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, []byte(ca), 0o644); err != nil {
		t.Fatal(err)
	}
	u, _ := url.Parse(srv.URL)
	for _, tc := range []struct {
		name, place, npmrc string
		env                []string
		ok                 bool
	}{
		{name: "nothing"},
		{name: "cafile", npmrc: "cafile=" + file, ok: true},
		{name: "ca", npmrc: `ca="` + strings.ReplaceAll(ca, "\n", `\n`) + `"`, ok: true},
		{name: "ca list", npmrc: `ca[]="` + strings.ReplaceAll(ca, "\n", `\n`) + `"`, ok: true},
		{name: "NODE_EXTRA_CA_CERTS", env: []string{"NODE_EXTRA_CA_CERTS=" + file}, ok: true},
		{name: "strict-ssl", npmrc: "strict-ssl=false", ok: true},
		{name: "strict-ssl in a project", place: "project", npmrc: "strict-ssl=false"},
		{name: "cafile in a project", place: "project", npmrc: "cafile=" + file},
	} {
		t.Run(tc.name, func(t *testing.T) {
			place := "user"
			if tc.place != "" {
				place = tc.place
			}
			c, err := npmrc(t, map[string]string{place: tc.npmrc}, tc.env...)
			if err != nil {
				t.Fatal(err)
			}
			tr, err := c.Transport(u)
			if err != nil {
				t.Fatal(err)
			}
			defer tr.CloseIdleConnections()
			req, _ := http.NewRequestWithContext(t.Context(), "GET", srv.URL, nil)
			resp, err := tr.RoundTrip(req)
			if err == nil {
				resp.Body.Close()
			}
			if (err == nil) != tc.ok {
				t.Errorf("error %v, want success %v", err, tc.ok)
			}
		})
	}
	c, err := npmrc(t, map[string]string{"user": "cafile=/no/such/file"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Transport(u)
	wantCode(t, err, opencode.CodeRegistryConfig, "/no/such/file", ".npmrc")
}

func TestNpmProxy(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, npmrc, url, want string }{
		{"https-proxy", "https-proxy=http://p.example:1", "https://r.example/", "http://p.example:1"},
		{"proxy", "proxy=http://p.example:2", "http://r.example/", "http://p.example:2"},
		{"noproxy", "https-proxy=http://p.example:1\nnoproxy=a.example, .r.example", "https://in.r.example/", ""},
		{"noproxy of another", "https-proxy=http://p.example:1\nnoproxy=a.example", "https://r.example/", "http://p.example:1"},
	} {
		c, err := npmrc(t, map[string]string{"user": tc.npmrc})
		if err != nil {
			t.Fatal(err)
		}
		u, _ := url.Parse(tc.url)
		tr, err := c.Transport(u)
		if err != nil {
			t.Fatal(err)
		}
		got, err := tr.Proxy(&http.Request{URL: u})
		s := ""
		if got != nil {
			s = got.String()
		}
		if err != nil || s != tc.want {
			t.Errorf("%s: proxy %q, %v; want %q", tc.name, s, err, tc.want)
		}
	}
}

func FuzzNpmrc(f *testing.F) {
	for _, s := range []string{"registry=https://a.example/", "//h/:_authToken=${NPM_TOKEN}", "a[]=1\na[]='2", "[x]\ny", "=\n==\n\"=\"", "registry=${${A}}", "x=\\${A\\\\${A}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, ".npmrc"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := opencode.LoadNpmConfig(opencode.NpmSources{Env: []string{"A=1"}, Home: dir, Dir: t.TempDir(), GlobalFile: filepath.Join(dir, "none")})
		if err != nil {
			return
		}
		u, _, err := c.Registry("@a/b")
		if err == nil && (!slices.Contains([]string{"http", "https"}, u.Scheme) || u.Host == "" || !strings.HasSuffix(u.Path, "/")) {
			t.Errorf("registry %q", u)
		}
		r := httptest.NewRequest("GET", "https://h.example/a/b/c", nil)
		c.Authorize(r)
	})
}
