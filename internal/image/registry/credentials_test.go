package registry

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func TestDockerConfiguration(t *testing.T) {
	dir := t.TempDir()
	helper := filepath.Join(dir, "docker-credential-known")
	if err := os.WriteFile(helper, []byte("#!/bin/sh\nread server\ncase $server in\nh.example) echo '{\"Username\":\"h\",\"Secret\":\"s\"}';;\nt.example) echo '{\"Username\":\"<token>\",\"Secret\":\"id\"}';;\n*) echo 'credentials not found in native keychain'; exit 1;;\nesac\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	file := filepath.Join(dir, "config.json")
	for _, c := range []struct {
		config, registry string
		want             Credential
		fails            string
	}{
		{``, "a.example", Credential{}, "JSON"},
		{`{}`, "a.example", Credential{}, ""},
		{`{"auths":{"a.example":{"auth":"bWU6c2VjcmV0OjE="}}}`, "a.example", Credential{"me", "secret:1", ""}, ""},
		{`{"auths":{"a.example":{"auth":"bWU6c2VjcmV0OjE="}}}`, "b.example", Credential{}, ""},
		{`{"auths":{"https://a.example":{"username":"u","password":"p"}}}`, "a.example", Credential{"u", "p", ""}, ""},
		{`{"auths":{"https://index.docker.io/v1/":{"auth":"bWU6eA==","identitytoken":"t"}}}`, "index.docker.io", Credential{"me", "x", "t"}, ""},
		{`{"auths":{"a.example":{"auth":"!"}}}`, "a.example", Credential{}, "base64"},
		{`{"auths":{"a.example":{}},"credsStore":"known"}`, "a.example", Credential{}, ""},
		{`{"credsStore":"known"}`, "h.example", Credential{"h", "s", ""}, ""},
		{`{"credHelpers":{"t.example":"known"}}`, "t.example", Credential{"", "", "id"}, ""},
		{`{"credHelpers":{"t.example":"../../bin/sh"}}`, "t.example", Credential{}, "can't be the name"},
		{`{"credHelpers":{"t.example":"missing"}}`, "t.example", Credential{}, "docker-credential-missing"},
	} {
		if err := os.WriteFile(file, []byte(c.config), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := credentialsIn(t.Context(), file, c.registry)
		if got != c.want || (err != nil) != (c.fails != "") || err != nil && !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(c.fails)) {
			t.Errorf("%s for %s: %+v, %v", c.config, c.registry, got, err)
		}
	}
	if got, err := credentialsIn(t.Context(), filepath.Join(dir, "none"), "a.example"); got != (Credential{}) || err != nil {
		t.Errorf("without a file: %+v, %v", got, err)
	}
}

func FuzzParseChallenge(f *testing.F) {
	f.Add(`Bearer realm="https://a/token",service="x\"y",scope=z`)
	f.Add(`Basic realm=`)
	f.Fuzz(func(t *testing.T, text string) {
		if _, params := parseChallenge(text); len(params) > 16 {
			t.Errorf("%d parameters", len(params))
		}
	})
}

func FuzzReadManifest(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"digest":"sha256:00","platform":{"os":"linux","architecture":"amd64"}}]}`))
	f.Add([]byte(`{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":2,"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},"layers":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, digest, err := ReadManifest(data, "", v1.Platform{OS: "linux", Architecture: "amd64"})
		if err == nil && (m == nil) == (digest == "") {
			t.Errorf("%v, %q", m, digest)
		}
	})
}
