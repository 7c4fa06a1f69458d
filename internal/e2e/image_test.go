package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// TestImage serves sessions whose sandboxes are made from an image that a registry has: one with busybox and
// nothing else, so that there is neither bash nor git in it.
func TestImage(t *testing.T) {
	needSandboxes(t)
	t.Parallel()
	ref := pushBusybox(t)
	home := newHome(t)
	s := up(t, home, withArgs("--image", ref))
	out := s.output()
	for _, want := range []string{ref + ": layer", "image " + ref + ": not in it: bash, git, rg, python3, node; commands are run by /bin/sh"} {
		if !strings.Contains(out, want) {
			t.Errorf("tongs up did not say %q:\n%s", want, out)
		}
	}
	session := s.session()
	if got := s.bash(session, "echo $0; id -un; pwd; cat /srv/mark; echo x >new && cat new; ls -A /usr"); got != "/bin/sh\nuser\n/home/user/project\nof the image\nx\nlocal\n" {
		t.Errorf("in a session: %q", got)
	}
	list := tongs(t, home, "image", "list")
	if !strings.Contains(list.stdout, ref) {
		t.Errorf("the list: %s%s", list.stdout, list.stderr)
	}
	if rm := tongs(t, home, "image", "rm", ref); rm.code != 1 || !strings.Contains(rm.stderr, "is used by "+session) {
		t.Errorf("removed although it is used: %d %s%s", rm.code, rm.stdout, rm.stderr)
	}

	// It is killed, and the next one starts sandboxes of the image again without the registry.
	s.cmd.Process.Kill()
	<-s.done
	again := up(t, home, withArgs("--image", ref))
	if got := again.bash(session, "cat new"); got != "x\n" {
		t.Errorf("after a restart: %q", got)
	}
	if got := again.bash(again.session(), "cat /srv/mark"); got != "of the image\n" {
		t.Errorf("a new session after a restart: %q", got)
	}
}

// pushBusybox makes an image of this machine's busybox in a registry, and gives its name.
func pushBusybox(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("there is no busybox on this machine to make an image of")
	}
	work := t.TempDir()
	for _, dir := range []string{"bin", "srv"} {
		if err := os.Mkdir(filepath.Join(work, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(filepath.Join(work, "bin/busybox"), data, 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(work, "srv/mark"), []byte("of the image\n"), 0o644)
	}
	for _, name := range []string{"sh", "cat", "id", "ls", "echo"} {
		if err == nil {
			err = os.Symlink("busybox", filepath.Join(work, "bin", name))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	layer, err := exec.Command("tar", "-C", work, "-c", ".").Output()
	if err != nil {
		t.Skipf("tar: %v", err)
	}

	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	send := func(method, path string, kind types.MediaType, body []byte) v1.Descriptor {
		d := v1.Descriptor{MediaType: kind, Size: int64(len(body)), Digest: v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", sha256.Sum256(body))}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, method, server.URL+"/v2/tiny/image/"+strings.ReplaceAll(path, "DIGEST", d.Digest.String()), bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", string(kind))
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode/100 != 2 {
			t.Fatalf("%s %s: %s", method, path, res.Status)
		}
		return d
	}
	upload := func(kind types.MediaType, body []byte) v1.Descriptor {
		return send(http.MethodPost, "blobs/uploads/?digest=DIGEST", kind, body)
	}
	l := upload(types.OCIUncompressedLayer, layer)
	cfg, err := json.Marshal(v1.ConfigFile{OS: "linux", RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{l.Digest}}})
	if err != nil {
		t.Fatal(err)
	}
	m, err := json.Marshal(v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: upload(types.OCIConfigJSON, cfg), Layers: []v1.Descriptor{l}})
	if err != nil {
		t.Fatal(err)
	}
	send(http.MethodPut, "manifests/v1", types.OCIManifestSchema1, m)
	return strings.TrimPrefix(server.URL, "http://") + "/tiny/image:v1"
}
