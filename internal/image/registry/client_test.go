package registry_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	server "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"go.uber.org/goleak"

	"github.com/tongs-dev/tongs/internal/image/registry"
	"github.com/tongs-dev/tongs/sandbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// shop is a registry on this machine in front of which something may go wrong.
type shop struct {
	t    *testing.T
	host string
	get  func(w http.ResponseWriter, r *http.Request, next http.Handler) // of everything that is asked for
}

func newShop(t *testing.T) *shop {
	s := &shop{t: t}
	inner := server.New(server.Logger(log.New(io.Discard, "", 0)))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.get != nil && (r.Method == http.MethodGet) {
			s.get(w, r, inner)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	s.host = strings.TrimPrefix(srv.URL, "http://")
	return s
}

func (s *shop) send(method, path, kind string, body []byte) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, "http://"+s.host+path, bytes.NewReader(body))
	must(s.t, err)
	req.Header.Set("Content-Type", kind)
	res, err := http.DefaultClient.Do(req)
	must(s.t, err)
	defer res.Body.Close()
	if res.StatusCode/100 != 2 {
		s.t.Fatalf("%s %s: %s", method, path, res.Status)
	}
}

func descriptor(kind types.MediaType, data []byte) v1.Descriptor {
	return v1.Descriptor{MediaType: kind, Size: int64(len(data)), Digest: v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", sha256.Sum256(data))}}
}

func (s *shop) blob(kind types.MediaType, data []byte) v1.Descriptor {
	d := descriptor(kind, data)
	s.send(http.MethodPost, "/v2/some/image/blobs/uploads/?digest="+d.Digest.String(), "application/octet-stream", data)
	return d
}

// image pushes an image of one layer.
func (s *shop) image(tag string, layer []byte) (name.Reference, *v1.Manifest) {
	m := &v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: s.blob(types.OCIConfigJSON, []byte(`{"os":"linux"}`)), Layers: []v1.Descriptor{s.blob(types.OCILayer, layer)}}
	data, err := json.Marshal(m)
	must(s.t, err)
	s.send(http.MethodPut, "/v2/some/image/manifests/"+tag, string(types.OCIManifestSchema1), data)
	ref, err := name.ParseReference(s.host + "/some/image:" + tag)
	must(s.t, err)
	return ref, m
}

var amd64 = v1.Platform{OS: "linux", Architecture: "amd64"}

func client(t *testing.T, change func(*registry.Options)) *registry.Client {
	opts := registry.Options{Stall: 300 * time.Millisecond, Attempts: 3, Pause: time.Millisecond,
		Credentials: func(context.Context, string) (registry.Credential, error) { return registry.Credential{}, nil }}
	if change != nil {
		change(&opts)
	}
	c := registry.New(opts)
	t.Cleanup(func() { c.Close(); http.DefaultClient.CloseIdleConnections() })
	return c
}

func tempFile(t *testing.T, begin []byte) *os.File {
	f, err := os.Create(filepath.Join(t.TempDir(), "blob"))
	must(t, err)
	t.Cleanup(func() { f.Close() })
	_, err = f.Write(begin)
	must(t, err)
	return f
}

func content(t *testing.T, f *os.File) []byte {
	data, err := os.ReadFile(f.Name())
	must(t, err)
	return data
}

func wantCode(t *testing.T, err error, code sandbox.Code, says string) {
	t.Helper()
	var e *sandbox.Error
	if !errors.As(err, &e) || e.Code != code || e.Hint == "" || !strings.Contains(err.Error(), says) {
		t.Errorf("got %v, want %s with a hint, saying %q", err, code, says)
	}
}

func TestPull(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	layer := bytes.Repeat([]byte("layer "), 100_000)
	ref, pushed := s.image("v1", layer)
	c := client(t, nil)
	m, err := c.Manifest(t.Context(), ref, amd64)
	must(t, err)
	if m.Layers[0].Digest != pushed.Layers[0].Digest {
		t.Errorf("layer %s", m.Layers[0].Digest)
	}
	cfg, err := c.Config(t.Context(), ref, m.Manifest)
	if err != nil || string(cfg) != `{"os":"linux"}` {
		t.Errorf("configuration %q, %v", cfg, err)
	}
	var last int64
	f := tempFile(t, nil)
	must(t, c.Blob(t.Context(), ref.Context(), m.Layers[0], f, func(n int64) { last = n }))
	if !bytes.Equal(content(t, f), layer) || last != int64(len(layer)) {
		t.Errorf("%d bytes, progress %d", len(content(t, f)), last)
	}
	byDigest, err := name.ParseReference(s.host + "/some/image@" + m.Digest)
	must(t, err)
	if again, err := c.Manifest(t.Context(), byDigest, amd64); err != nil || again.Digest != m.Digest {
		t.Errorf("by digest: %v", err)
	}
	_, err = c.Manifest(t.Context(), ref.Context().Tag("none"), amd64)
	wantCode(t, err, sandbox.CodeImageNotFound, "no such image")
}

// TestResume cuts downloads off, from servers that know ranges and from one that doesn't.
func TestResume(t *testing.T) {
	t.Parallel()
	layer := bytes.Repeat([]byte("0123456789"), 60_000)
	for what, ranges := range map[string]bool{"ranges": true, "no ranges": false} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newShop(t)
			ref, m := s.image("v1", layer)
			var asked []string
			s.get = func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if !strings.Contains(r.URL.Path, m.Layers[0].Digest.String()) {
					next.ServeHTTP(w, r)
					return
				}
				asked = append(asked, r.Header.Get("Range"))
				begin := 0
				if text, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes="); ok && ranges {
					begin, _ = strconv.Atoi(strings.Split(text, "-")[0])
					w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", begin, len(layer)-1, len(layer)))
					w.WriteHeader(http.StatusPartialContent)
				}
				end := min(len(layer), begin+150_000)
				if !ranges {
					end = min(len(layer), 150_000*len(asked))
				}
				w.Write(layer[begin:end])
			}
			f := tempFile(t, layer[:1000]) // of an earlier process
			must(t, client(t, nil).Blob(t.Context(), ref.Context(), m.Layers[0], f, nil))
			if !bytes.Equal(content(t, f), layer) {
				t.Error("the blob is another")
			}
			if len(asked) < 4 || asked[0] != fmt.Sprintf("bytes=1000-%d", len(layer)-1) {
				t.Errorf("asked for %q", asked)
			}
		})
	}
}

func TestLies(t *testing.T) {
	t.Parallel()
	layer := bytes.Repeat([]byte("0123456789"), 60_000)
	other := bytes.Repeat([]byte("abcdefghij"), 60_000)
	for what, c := range map[string]struct {
		answer func(w http.ResponseWriter, r *http.Request)
		begin  []byte
		code   sandbox.Code
		says   string
	}{
		"nothing wrong":        {func(w http.ResponseWriter, r *http.Request) { w.Write(layer) }, nil, "", ""},
		"another content":      {func(w http.ResponseWriter, r *http.Request) { w.Write(other) }, nil, sandbox.CodeImageInvalid, "has the digest"},
		"another beginning":    {func(w http.ResponseWriter, r *http.Request) { w.Write(layer) }, other[:70_000], sandbox.CodeImageInvalid, "has the digest"},
		"too long beginning":   {func(w http.ResponseWriter, r *http.Request) { w.Write(layer) }, append(other, '.'), "", ""},
		"larger":               {func(w http.ResponseWriter, r *http.Request) { w.Write(append(layer, '.')) }, nil, sandbox.CodeImageInvalid, "registry sends"},
		"larger without a say": {func(w http.ResponseWriter, r *http.Request) { w.Write(layer); w.(http.Flusher).Flush(); w.Write(layer) }, nil, "", ""},
		"smaller":              {func(w http.ResponseWriter, r *http.Request) { w.Write(layer[:100]) }, nil, sandbox.CodeImageInvalid, "registry sends 100"},
		"always cut": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(len(layer)))
			w.Write(layer[:100])
		}, nil, sandbox.CodeRegistryError, "unexpected EOF"},
		"stalls at once": {func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, nil, sandbox.CodeRegistryError, "sent nothing for"},
		"stalls in the middle": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(len(layer)))
			w.Write(layer[:1000])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, nil, sandbox.CodeRegistryError, "sent nothing for"},
		"another range": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", "bytes 5-10/600000")
			w.WriteHeader(http.StatusPartialContent)
		}, layer[:100], sandbox.CodeImageInvalid, "another part"},
		"fails":     {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) }, nil, sandbox.CodeRegistryError, "500"},
		"too often": {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(429) }, nil, sandbox.CodeRegistryError, "too often"},
		"gone":      {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(404) }, nil, sandbox.CodeImageNotFound, "no such"},
		"leads to plain text elsewhere and back": {func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("x") == "" {
				http.Redirect(w, r, r.URL.Path+"?x=1", http.StatusTemporaryRedirect)
				return
			}
			w.Write(layer)
		}, nil, "", ""},
		"leads on for ever": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path+"?x", http.StatusTemporaryRedirect)
		}, nil, sandbox.CodeRegistryError, "redirections"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newShop(t)
			ref, m := s.image("v1", layer)
			s.get = func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if !strings.Contains(r.URL.Path, m.Layers[0].Digest.String()) {
					next.ServeHTTP(w, r)
					return
				}
				c.answer(w, r)
			}
			f := tempFile(t, c.begin)
			err := client(t, nil).Blob(t.Context(), ref.Context(), m.Layers[0], f, nil)
			if c.code == "" {
				must(t, err)
				if !bytes.Equal(content(t, f), layer) {
					t.Error("the blob is another")
				}
				return
			}
			wantCode(t, err, c.code, c.says)
			if c.says == "has the digest" && len(content(t, f)) != 0 {
				t.Error("a wrong blob is kept as the beginning of the right one")
			}
		})
	}
}

func TestManifestLies(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	ref, m := s.image("v1", []byte("layer"))
	data, err := json.Marshal(m)
	must(t, err)
	index := func(platforms ...string) []byte {
		i := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
		for _, p := range platforms {
			platform, err := v1.ParsePlatform(p)
			must(t, err)
			d := descriptor(types.OCIManifestSchema1, data)
			d.Platform = platform
			i.Manifests = append(i.Manifests, d)
		}
		text, err := json.Marshal(i)
		must(t, err)
		return text
	}
	variant := func(change func(m *v1.Manifest)) []byte {
		other := *m.DeepCopy()
		change(&other)
		text, err := json.Marshal(other)
		must(t, err)
		return text
	}
	for what, c := range map[string]struct {
		sent []byte
		code sandbox.Code
		says string
	}{
		"an image":             {data, "", ""},
		"an index":             {index("linux/arm64", "linux/amd64", "unknown/unknown"), "", ""},
		"another platform":     {index("linux/arm64", "windows/amd64"), sandbox.CodeImageNotSupported, "there are linux/arm64, windows/amd64"},
		"empty index":          {index(), sandbox.CodeImageNotSupported, "none"},
		"no JSON":              {[]byte("<html>"), sandbox.CodeImageInvalid, "no JSON"},
		"large":                {bytes.Repeat([]byte(" "), 5<<20), sandbox.CodeImageInvalid, "more than 4 MiB"},
		"of the first version": {[]byte(`{"schemaVersion":1,"name":"x","fsLayers":[]}`), sandbox.CodeImageNotSupported, "first version"},
		"no image":             {[]byte(`{"schemaVersion":2,"mediaType":"application/vnd.x"}`), sandbox.CodeImageNotSupported, "no image"},
		"a chart":              {variant(func(m *v1.Manifest) { m.Config.MediaType = "application/vnd.cncf.helm.config.v1+json" }), sandbox.CodeImageNotSupported, "helm"},
		"too many layers": {variant(func(m *v1.Manifest) {
			for range 200 {
				m.Layers = append(m.Layers, m.Layers[0])
			}
		}), sandbox.CodeImageNotSupported, "201 layers"},
		"too large layers":      {variant(func(m *v1.Manifest) { m.Layers[0].Size = 1 << 40 }), sandbox.CodeArchiveTooLarge, "GiB"},
		"a negative size":       {variant(func(m *v1.Manifest) { m.Layers[0].Size = -1 }), sandbox.CodeImageInvalid, "-1 bytes"},
		"layers from elsewhere": {variant(func(m *v1.Manifest) { m.Layers[0].MediaType = types.DockerForeignLayer }), sandbox.CodeImageNotSupported, "distributed"},
	} {
		t.Run(what, func(t *testing.T) {
			s := &shop{t: t}
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, "/manifests/v1") {
					w.Write(c.sent)
				} else if strings.Contains(r.URL.Path, "/manifests/") {
					w.Write(data)
				}
			}))
			defer srv.Close()
			s.host = strings.TrimPrefix(srv.URL, "http://")
			to, err := name.ParseReference(s.host + "/" + ref.Context().RepositoryStr() + ":v1")
			must(t, err)
			got, err := client(t, nil).Manifest(t.Context(), to, amd64)
			if c.code != "" {
				wantCode(t, err, c.code, c.says)
				return
			}
			must(t, err)
			if got.Layers[0].Digest != m.Layers[0].Digest {
				t.Error("another image")
			}
			_, err = client(t, nil).Manifest(t.Context(), to.Context().Digest("sha256:"+strings.Repeat("0", 64)), amd64)
			wantCode(t, err, sandbox.CodeImageInvalid, "another manifest")
			_, err = client(t, nil).Config(t.Context(), to, got.Manifest)
			wantCode(t, err, sandbox.CodeImageInvalid, "another configuration")
		})
	}
}

// TestAuthorization asks a registry that wants a token, or a name and a password.
func TestAuthorization(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	ref, _ := s.image("v1", []byte("layer"))
	var tokens atomic.Int32
	basic := false
	s.get = func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		user, password, _ := r.BasicAuth()
		right := user == "me" && password == "secret:1"
		switch {
		case r.URL.Path == "/token":
			if !right || r.URL.Query().Get("scope") != "repository:some/image:pull" || r.URL.Query().Get("service") != `a "service", quoted` {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			tokens.Add(1)
			fmt.Fprint(w, `{"access_token":"T"}`)
		case basic && right || r.Header.Get("Authorization") == "Bearer T":
			next.ServeHTTP(w, r)
		case basic:
			w.Header().Set("WWW-Authenticate", `Basic realm="here"`)
			w.WriteHeader(http.StatusUnauthorized)
		default:
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+s.host+`/token",service="a \"service\", quoted",scope=x`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}
	with := func(c registry.Credential) *registry.Client {
		return client(t, func(o *registry.Options) {
			o.Credentials = func(_ context.Context, host string) (registry.Credential, error) {
				if host != s.host {
					t.Errorf("asked for %s", host)
				}
				return c, nil
			}
		})
	}
	c := with(registry.Credential{Username: "me", Password: "secret:1"})
	for range 3 {
		_, err := c.Manifest(t.Context(), ref, amd64)
		must(t, err)
	}
	if n := tokens.Load(); n != 1 {
		t.Errorf("asked for %d tokens", n)
	}
	_, err := with(registry.Credential{Username: "me", Password: "wrong"}).Manifest(t.Context(), ref, amd64)
	wantCode(t, err, sandbox.CodeRegistryAuth, "")
	if strings.Contains(err.Error(), "wrong") {
		t.Error("the error tells the password")
	}
	basic = true
	_, err = with(registry.Credential{Username: "me", Password: "secret:1"}).Manifest(t.Context(), ref, amd64)
	must(t, err)
	_, err = with(registry.Credential{}).Manifest(t.Context(), ref, amd64)
	wantCode(t, err, sandbox.CodeRegistryAuth, "docker login")
}

// TestPlainText: nothing but TLS is spoken to another machine, nor are credentials sent to a service that
// it names in plain text.
func TestPlainText(t *testing.T) {
	t.Parallel()
	var asked atomic.Value
	c := client(t, func(o *registry.Options) {
		o.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
			asked.Store(r.URL.String())
			h := http.Header{"Www-Authenticate": {`Bearer realm="http://elsewhere.example/token"`}}
			return &http.Response{StatusCode: 401, Header: h, Body: http.NoBody, Request: r}, nil
		})
		o.Credentials = func(context.Context, string) (registry.Credential, error) {
			return registry.Credential{Username: "me", Password: "p"}, nil
		}
	})
	ref, err := name.ParseReference("10.1.2.3:5000/some/image:v1")
	must(t, err)
	_, err = c.Manifest(t.Context(), ref, amd64)
	wantCode(t, err, sandbox.CodeRegistryError, "service for tokens")
	if got := asked.Load(); got != "https://10.1.2.3:5000/v2/some/image/manifests/v1" {
		t.Errorf("asked %v", got)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
