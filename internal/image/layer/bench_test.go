//go:build linux

package layer_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/tongs-dev/tongs/internal/image/layer"
)

// BenchmarkUnpack unpacks an archive the size of a small distribution and has GNU tar unpack the same bytes,
// in turns. TONGS_BENCH_ROOTFS names an archive to use instead.
func BenchmarkUnpack(b *testing.B) {
	if _, err := exec.LookPath("tar"); err != nil {
		b.Skip("there is no tar on this machine")
	}
	data := distribution(b)
	var z bytes.Buffer
	w, err := gzip.NewWriterLevel(&z, 6)
	must(b, err)
	_, err = w.Write(data)
	must(b, err)
	must(b, w.Close())
	for _, c := range []struct {
		name string
		data []byte
		flag string
	}{{"plain", data, "-xf"}, {"gzip", z.Bytes(), "-xzf"}} {
		b.Run(c.name, func(b *testing.B) {
			archive := filepath.Join(b.TempDir(), "archive")
			must(b, os.WriteFile(archive, c.data, 0o644))
			var ours, theirs time.Duration
			for b.Loop() {
				for _, turn := range []struct {
					took *time.Duration
					do   func(dir string)
				}{{&ours, func(dir string) {
					f, err := os.Open(archive)
					must(b, err)
					defer f.Close()
					_, err = layer.Unpack(b.Context(), dir, f, layer.Options{Owners: isRoot})
					must(b, err)
				}}, {&theirs, func(dir string) {
					args := []string{c.flag, archive, "-C", dir, "--numeric-owner", "--same-permissions"}
					if out, err := exec.CommandContext(b.Context(), "tar", args...).CombinedOutput(); err != nil {
						b.Fatalf("%v: %s", err, out)
					}
				}}} {
					dir := filepath.Join(b.TempDir(), "tree")
					must(b, os.Mkdir(dir, 0o755))
					began := time.Now()
					turn.do(dir)
					*turn.took += time.Since(began)
					must(b, os.RemoveAll(dir))
				}
			}
			mib := float64(len(data)) / (1 << 20) * float64(b.N)
			b.ReportMetric(mib/ours.Seconds(), "MiB/s")
			b.ReportMetric(mib/theirs.Seconds(), "tar-MiB/s")
			b.ReportMetric(theirs.Seconds()/ours.Seconds(), "times-tar")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// distribution makes an archive of 4,000 files in 400 directories, 100 MiB, half of which compresses well.
func distribution(b *testing.B) []byte {
	if p := os.Getenv("TONGS_BENCH_ROOTFS"); p != "" {
		data, err := os.ReadFile(p)
		must(b, err)
		return data
	}
	random := rand.New(rand.NewPCG(1, 2))
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	noise := make([]byte, 256<<10)
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	for d := range 400 {
		must(b, w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: fmt.Sprintf("usr/lib/%d/", d), Mode: 0o755, ModTime: time.Unix(1e9, 0)}))
		for f := range 10 {
			size := random.Int64N(52 << 10)
			must(b, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("usr/lib/%d/file-%d", d, f), Mode: 0o644, Size: size, ModTime: time.Unix(1e9, 0)}))
			if f%2 == 0 {
				_, err := w.Write(noise[:size])
				must(b, err)
				continue
			}
			_, err := io.CopyN(w, &words{}, size)
			must(b, err)
		}
	}
	must(b, w.Close())
	return out.Bytes()
}

// words is text that compresses as programs do.
type words struct{ n int }

func (w *words) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte("the quick brown fox jumps over it"[(w.n*w.n/7+w.n)%33])
		w.n++
	}
	return len(p), nil
}
