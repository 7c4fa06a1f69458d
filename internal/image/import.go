package image

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/tongs-dev/tongs/internal/image/registry"
	"github.com/tongs-dev/tongs/sandbox"
)

// ImportOptions say how to import. The zero value will do.
type ImportOptions struct {
	// Name is what the image is called. Default: as it says itself, else how its file is called.
	Name string
	// Platform and Progress: see PullOptions. Of what is only a root file system, Platform says what it is for.
	PullOptions
}

const importOp = "import image"

// Import takes an image from the disk: a directory with an OCI layout, an archive of one, what `docker save`
// writes, or an archive of a root file system (`docker export`, debootstrap). Archives may be compressed
// with gzip or zstd.
func (s *Store) Import(ctx context.Context, file string, opts ImportOptions) (Image, error) {
	if opts.Name != "" {
		if _, err := parse(importOp, opts.Name); err != nil {
			return Image{}, err
		}
	}
	platform, err := opts.platform(importOp)
	if err != nil {
		return Image{}, err
	}
	info, err := os.Stat(file)
	if err != nil {
		return Image{}, sandbox.FileError(importOp, err)
	}
	release, err := s.share(ctx, importOp)
	if err != nil {
		return Image{}, err
	}
	defer release()
	report := reporter(opts.Progress)
	if info.IsDir() {
		root, err := os.OpenRoot(file)
		if err != nil {
			return Image{}, sandbox.FileError(importOp, err)
		}
		defer root.Close()
		return s.importFiles(ctx, dirFiles{root}, file, opts, platform, report)
	}
	if !info.Mode().IsRegular() {
		return Image{}, sandbox.Errf(sandbox.CodeNotRegular, importOp, file+" is no file", "name an archive, or a directory with an OCI layout")
	}
	f, err := os.Open(file)
	if err != nil {
		return Image{}, sandbox.FileError(importOp, err)
	}
	defer f.Close()
	kind, err := kindOf(f)
	if err != nil {
		return Image{}, err
	}
	if kind == rootArchive {
		return s.importRoot(ctx, f, info.Size(), opts, platform, report)
	}
	files, err := s.openArchive(ctx, f)
	if err != nil {
		return Image{}, err
	}
	defer files.close()
	return s.importFiles(ctx, files, file, opts, platform, report)
}

// archiveKind is what an archive on the disk is.
type archiveKind int

const (
	rootArchive  archiveKind = iota // of a root file system
	imageArchive                    // of an image's layers, with what describes them
)

// partOfImage matches names that archives of images begin with, and root file systems hardly.
var partOfImage = regexp.MustCompile(`^(blobs(/sha256(/[0-9a-f]{64})?)?|(sha256:)?[0-9a-f]{64}(\.json|\.tar|\.tar\.gz|/VERSION|/json|/layer\.tar)?|manifest\.json|repositories|oci-layout|index\.json)/?$`)

// kindOf looks at how an archive begins, and goes back to its beginning.
func kindOf(f *os.File) (archiveKind, error) {
	r, end, err := plainArchive(f)
	if err != nil {
		return 0, err
	}
	defer end()
	h, err := newTar(r).Next()
	if err != nil && err != io.EOF {
		return 0, &sandbox.Error{Code: sandbox.CodeInvalidArchive, Op: importOp, Message: f.Name() + " is no tar archive: " + err.Error(), Err: err,
			Hint: "plain ones and those compressed with gzip or zstd are known"}
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return 0, sandbox.FileError(importOp, err)
	}
	if h != nil && partOfImage.MatchString(strings.TrimPrefix(h.Name, "./")) {
		return imageArchive, nil
	}
	return rootArchive, nil
}

// plainArchive undoes an archive's compression.
func plainArchive(f *os.File) (io.Reader, func(), error) {
	b := bufio.NewReaderSize(f, 256<<10)
	head, err := b.Peek(4)
	if err != nil && err != io.EOF {
		return nil, nil, sandbox.FileError(importOp, err)
	}
	damaged := func(err error) error {
		return &sandbox.Error{Code: sandbox.CodeInvalidArchive, Op: importOp, Message: f.Name() + " is damaged: " + err.Error(), Hint: "get it again from where it is from", Err: err}
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, nil, damaged(err)
		}
		return z, func() { z.Close() }, nil
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(b, zstd.WithDecoderMaxWindow(128<<20), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, nil, damaged(err)
		}
		return z, z.Close, nil
	}
	return b, func() {}, nil
}

// importRoot makes an image of one layer.
func (s *Store) importRoot(ctx context.Context, f *os.File, size int64, opts ImportOptions, platform v1.Platform, report func(Progress)) (Image, error) {
	s.removeUnfinished(ctx)
	report(Progress{Step: "unpack", Total: size})
	res, err := s.unpack(ctx, importOp, "", &reportingReader{r: f, report: func(n int64) { report(Progress{Step: "unpack", Done: n, Total: size}) }})
	if err != nil {
		return Image{}, err
	}
	hash, err := v1.NewHash(res.DiffID)
	if err != nil {
		return Image{}, err
	}
	cfg := &v1.ConfigFile{OS: platform.OS, Architecture: platform.Architecture, Variant: platform.Variant, RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{hash}}}
	raw, err := json.Marshal(cfg)
	if err != nil {
		return Image{}, err
	}
	called, err := importName(opts.Name, f.Name())
	if err != nil {
		return Image{}, err
	}
	return s.finish(ctx, importOp, raw, cfg, []part{{diffID: res.DiffID}}, Name{Name: called}, report)
}

var notInNames = regexp.MustCompile(`[^a-z0-9]+`)

// importName is what an image is called: as asked for, else as its file is.
func importName(asked, file string) (string, error) {
	if asked == "" {
		base := strings.ToLower(filepath.Base(file))
		for _, ext := range []string{".gz", ".zst", ".tgz", ".tar", ".oci"} {
			base = strings.TrimSuffix(base, ext)
		}
		if asked = strings.Trim(notInNames.ReplaceAllString(base, "-"), "-"); asked == "" {
			asked = "imported"
		}
	}
	ref, err := parse(importOp, asked)
	if err != nil {
		return "", err
	}
	return ref.Name(), nil
}

// files are the files of an image on the disk. Names are relative.
type files interface {
	open(name string) (io.ReadCloser, int64, error)
}

func readFile(f files, name string, most int64) ([]byte, error) {
	r, size, err := f.open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if size > most {
		return nil, fmt.Errorf("%s has %d bytes, the most is %d", name, size, most)
	}
	return io.ReadAll(io.LimitReader(r, most))
}

const maxDocument = 8 << 20

// savedImage is one of what `docker save` writes.
type savedImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// importFiles takes an image from its files: manifest.json is Docker's, index.json is OCI's.
func (s *Store) importFiles(ctx context.Context, f files, file string, opts ImportOptions, platform v1.Platform, report func(Progress)) (Image, error) {
	wrong := func(err error) error {
		var done *sandbox.Error
		if errors.As(err, &done) {
			return err
		}
		return &sandbox.Error{Code: sandbox.CodeImageInvalid, Op: importOp, Message: file + ": " + err.Error(), Err: err,
			Hint: "name an OCI layout, what `docker save` wrote, or an archive of a root file system"}
	}
	var raw []byte
	var names []string // of the layers' files
	called := opts.Name
	text, err := readFile(f, "manifest.json", maxDocument)
	switch {
	case err == nil:
		var saved []savedImage
		if err := json.Unmarshal(text, &saved); err != nil || len(saved) == 0 {
			return Image{}, wrong(fmt.Errorf("manifest.json lists no image: %w", err))
		}
		if len(saved) > 1 {
			return Image{}, sandbox.Errf(sandbox.CodeInvalidArgument, importOp, fmt.Sprintf("%s holds %d images", file, len(saved)), "save one at a time")
		}
		if called == "" && len(saved[0].RepoTags) > 0 {
			called = saved[0].RepoTags[0]
		}
		names = saved[0].Layers
		if raw, err = readFile(f, saved[0].Config, maxDocument); err != nil {
			return Image{}, wrong(err)
		}
	case errors.Is(err, fs.ErrNotExist):
		m, name, err := layoutManifest(f, platform)
		if err != nil {
			return Image{}, wrong(err)
		}
		if called == "" {
			called = name
		}
		if raw, err = readBlob(f, m.Config.Digest); err != nil {
			return Image{}, wrong(err)
		}
		for _, d := range m.Layers {
			names = append(names, blobName(d.Digest))
		}
	default:
		return Image{}, wrong(err)
	}
	cfg, err := readConfig(importOp, file, raw, platform)
	if err != nil {
		return Image{}, err
	}
	if len(names) != len(cfg.RootFS.DiffIDs) || len(names) > registry.MaxLayers {
		return Image{}, sandbox.Errf(sandbox.CodeImageInvalid, importOp, fmt.Sprintf("%s: %d layers, %d in its configuration; the most is %d", file, len(names), len(cfg.RootFS.DiffIDs), registry.MaxLayers), "do not trust this image")
	}
	parts := make([]part, len(names))
	for i, name := range names {
		parts[i] = part{diffID: cfg.RootFS.DiffIDs[i].String(), open: func(context.Context) (io.Reader, func(bool), error) {
			r, _, err := f.open(name)
			if err != nil {
				return nil, nil, wrong(err)
			}
			return r, func(bool) { r.Close() }, nil
		}}
	}
	full, err := importName(called, file)
	if err != nil {
		return Image{}, err
	}
	return s.finish(ctx, importOp, raw, cfg, parts, Name{Name: full}, report)
}

func blobName(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }

func readBlob(f files, h v1.Hash) ([]byte, error) {
	data, err := readFile(f, blobName(h), maxDocument)
	if err == nil && (h.Algorithm != "sha256" || digest(data) != h.Hex) {
		err = fmt.Errorf("the blob %s has another digest", h)
	}
	return data, err
}

// layoutManifest finds the image for a platform in an OCI layout, and what it is called.
func layoutManifest(f files, platform v1.Platform) (*v1.Manifest, string, error) {
	data, err := readFile(f, "index.json", maxDocument)
	if err != nil {
		return nil, "", fmt.Errorf("it is no OCI layout: %w", err)
	}
	index, err := v1.ParseIndexManifest(bytes.NewReader(data))
	if err != nil {
		return nil, "", err
	}
	if len(index.Manifests) == 0 {
		return nil, "", errors.New("there is no image in it")
	}
	name := ""
	for _, m := range index.Manifests {
		if ref := m.Annotations["io.containerd.image.name"]; name == "" && ref != "" {
			name = ref
		}
		if ref := m.Annotations["org.opencontainers.image.ref.name"]; name == "" && strings.ContainsAny(ref, ":/") {
			name = ref
		}
	}
	for range 4 {
		m, next, err := registry.ReadManifest(data, "", platform)
		if err != nil || m != nil {
			return m, name, err
		}
		h, err := v1.NewHash(next)
		if err != nil {
			return nil, "", err
		}
		if data, err = readBlob(f, h); err != nil {
			return nil, "", err
		}
	}
	return nil, "", errors.New("indexes of indexes")
}

// dirFiles are files of a directory.
type dirFiles struct{ root *os.Root }

func (d dirFiles) open(name string) (io.ReadCloser, int64, error) {
	f, err := d.root.Open(name)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no file", name)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}
