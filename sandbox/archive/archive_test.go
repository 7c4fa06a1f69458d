package archive_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/tongs-dev/tongs/sandbox"
	"github.com/tongs-dev/tongs/sandbox/archive"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tree is a sandbox that takes what is safe and keeps it in memory.
type tree struct {
	t       testing.TB
	entries []sandbox.TreeEntry
	text    map[string]string
	at      int
	r       *strings.Reader
}

func (t *tree) ReadTree(context.Context, string, sandbox.TreeOptions) (sandbox.TreeReader, error) {
	t.at = 0
	return t, nil
}

func (t *tree) WriteTree(context.Context, string, sandbox.WriteTreeOptions) (sandbox.TreeWriter, error) {
	return t, nil
}

func (t *tree) Next() (*sandbox.TreeEntry, error) {
	if t.at == len(t.entries) {
		return nil, io.EOF
	}
	e := t.entries[t.at]
	t.at++
	t.r = strings.NewReader(t.text[e.Name])
	return &e, nil
}

func (t *tree) Read(p []byte) (int, error) { return t.r.Read(p) }
func (t *tree) Close() error               { return nil }

func (t *tree) Add(e *sandbox.TreeEntry, r io.Reader) error {
	if err := sandbox.CheckTreeName(e.Name); err != nil {
		t.t.Errorf("an unsafe name came through: %q", e.Name)
	}
	if e.Type == sandbox.TreeHardlink && sandbox.CheckTreeName(e.Target) != nil {
		t.t.Errorf("an unsafe hard link came through: %q", e.Target)
	}
	if e.Mode&^0o1777 != 0 {
		t.t.Errorf("mode %o came through", e.Mode)
	}
	if e.Type == sandbox.TreeFile {
		b, err := io.ReadAll(io.LimitReader(r, e.Size))
		if err != nil {
			return err
		}
		t.text[e.Name] = string(b)
	}
	t.entries = append(t.entries, *e)
	return nil
}

func (t *tree) Finish() (*sandbox.TreeResult, error) { return &sandbox.TreeResult{}, nil }

func newTree(t testing.TB) *tree { return &tree{t: t, text: map[string]string{}} }

// FuzzExtract: whatever the bytes are, nothing unsafe comes out of them, and the
// bounds hold.
func FuzzExtract(f *testing.F) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []tar.Header{
		{Name: "a", Size: 2, Typeflag: tar.TypeReg}, {Name: "d/", Typeflag: tar.TypeDir}, {Name: "l", Typeflag: tar.TypeSymlink, Linkname: "../x"},
		{Name: "h", Typeflag: tar.TypeLink, Linkname: "a"}, {Name: "../up", Size: 2, Typeflag: tar.TypeReg, Mode: 0o7777, PAXRecords: map[string]string{"SCHILY.xattr.user.x": "y"}},
	} {
		_ = w.WriteHeader(&h)
		_, _ = io.WriteString(w, "hi"[:h.Size])
	}
	w.Close()
	f.Add(b.Bytes(), 0)
	f.Add(b.Bytes()[:700], 1)
	f.Add([]byte("\x28\xb5\x2f\xfd\x04\x00\x01\x00\x00"), 0)
	f.Add([]byte("\x1f\x8b\x08\x00"), 0)
	for _, format := range []archive.Format{archive.TarGzip, archive.TarZstd} {
		t := newTree(f)
		t.entries, t.text["x"] = []sandbox.TreeEntry{{Name: "x", Type: sandbox.TreeFile, Size: 3}}, "abc"
		r, err := archive.Create(context.Background(), t, ".", archive.CreateOptions{Format: format})
		if err != nil {
			f.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if r.Close(); err != nil {
			f.Fatal(err)
		}
		f.Add(data, 0)
	}
	f.Fuzz(func(t *testing.T, data []byte, strip int) {
		to := newTree(t)
		_, err := archive.Extract(context.Background(), to, ".", bytes.NewReader(data), archive.ExtractOptions{Strip: strip & 3, MaxBytes: 1 << 20, MaxEntries: 100})
		if err != nil && sandbox.CodeOf(err) == "" {
			t.Errorf("no typed error: %v", err)
		}
		if len(to.entries) > 100 {
			t.Errorf("%d entries", len(to.entries))
		}
	})
}

func ExampleCreate() {
	box := &tree{text: map[string]string{"hello.txt": "hello"}, entries: []sandbox.TreeEntry{{Name: "hello.txt", Type: sandbox.TreeFile, Mode: 0o644, Size: 5}}}
	r, err := archive.Create(context.Background(), box, ".", archive.CreateOptions{Format: archive.TarZstd})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer r.Close()
	copied := &tree{text: map[string]string{}}
	if _, err := archive.Extract(context.Background(), copied, ".", r, archive.ExtractOptions{}); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(copied.text)
	// Output: map[hello.txt:hello]
}
