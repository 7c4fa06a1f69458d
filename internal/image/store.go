package image

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/tongs-dev/tongs/internal/idmap"
	"github.com/tongs-dev/tongs/internal/image/layer"
	"github.com/tongs-dev/tongs/internal/image/registry"
	"github.com/tongs-dev/tongs/sandbox"
)

// Names in the directory of a store.
const (
	layersDir    = "layers"     // <digest>[-<tag of a map>]/: layer.json, and the files in tree/
	blobsDir     = "blobs"      // what is being downloaded
	pinsDir      = "pins"       // what running processes need
	indexFile    = "index.json" // the images
	storeLock    = "lock"       // shared: images are made or used; exclusive: something is removed
	indexLock    = "index.lock" // exclusive: the index is written
	newPrefix    = ".new-"      // of directories that are not finished; locked by whoever works on them
	makingPrefix = ".making-"   // of those that aren't locked yet
	treeName     = "tree"
	layerFile    = "layer.json"
)

// maxIndexBytes and maxImages bound the index.
const (
	maxIndexBytes = 64 << 20
	maxImages     = 10_000
)

// StoreConfig says how to open a store. Only Dir is required.
type StoreConfig struct {
	// Dir is where images are kept; it is made if need be.
	Dir string
	// OneID: see HostConfig.
	OneID bool
	// Registry says how registries are asked.
	Registry registry.Options
	// Limits bound each layer.
	Limits layer.Limits
	// Environ and Git: see HostConfig.
	Environ []string
	Git     string
}

// Store keeps images: their layers unpacked, each once, by the digest of what it holds. Processes share it.
type Store struct {
	cfg    StoreConfig
	ids    idmap.Map
	client *registry.Client

	mu         sync.Mutex
	repository []addition // the project's, once it has been made
}

// OpenStore opens a store.
func OpenStore(cfg StoreConfig) (*Store, error) {
	const op = "open images"
	if cfg.Environ == nil {
		cfg.Environ = os.Environ()
	}
	for _, dir := range []string{"", layersDir, blobsDir, pinsDir} {
		mode := fs.FileMode(0o700) // hostile files are in there
		if dir == "" {
			mode = 0o755
		}
		if err := os.MkdirAll(filepath.Join(cfg.Dir, dir), mode); err != nil {
			return nil, sandbox.FileError(op, err)
		}
	}
	s := &Store{cfg: cfg, client: registry.New(cfg.Registry)}
	if !cfg.OneID {
		s.ids, _ = idmap.Find()
	}
	return s, nil
}

// Close lets go of connections.
func (s *Store) Close() { s.client.Close() }

func (s *Store) path(parts ...string) string {
	return filepath.Join(s.cfg.Dir, filepath.Join(parts...))
}

// Image is an image of a store.
type Image struct {
	ID       string    `json:"id"` // digest of its configuration, "sha256:…": the same on every machine
	Names    []Name    `json:"names"`
	Platform string    `json:"platform"`         // "linux/amd64"
	Created  time.Time `json:"created,omitzero"` // as it says itself
	Added    time.Time `json:"added"`
	Layers   []string  `json:"layers"` // digests of their archives without compression, the lowest first
	Bytes    int64     `json:"bytes"`  // of the files of all layers
	Entries  int64     `json:"entries"`
	Env      []string  `json:"env,omitempty"`
	Shell    string    `json:"shell,omitempty"` // bash, else sh; "" is none
	Tools    []Tool    `json:"tools"`
	// Left counts what of its archives was left out; see package layer.
	Left layer.Left `json:"left,omitzero"`
}

// Name is what an image is called, and the digest of the manifest that the name stood for when it was pulled.
type Name struct {
	Name   string `json:"name"`
	Digest string `json:"digest,omitempty"`
}

// Tool is a program that agents like to have. Path is where it is inside; "" when it isn't.
type Tool struct {
	Name string `json:"name"`
	Path string `json:"path,omitempty"`
}

// Missing names the tools that an image lacks.
func (i Image) Missing() []string {
	var all []string
	for _, t := range i.Tools {
		if t.Path == "" {
			all = append(all, t.Name)
		}
	}
	return all
}

// String is what people call it.
func (i Image) String() string {
	if len(i.Names) > 0 {
		return Familiar(i.Names[0].Name)
	}
	return ShortID(i.ID)
}

// ShortID is the beginning of an id, enough for people.
func ShortID(id string) string {
	id = strings.TrimPrefix(id, "sha256:")
	return id[:min(12, len(id))]
}

// Familiar leaves out of a name what everybody leaves out.
func Familiar(full string) string {
	short := strings.TrimPrefix(strings.TrimPrefix(full, name.DefaultRegistry+"/"), "docker.io/")
	return strings.TrimPrefix(short, "library/")
}

// parse reads a reference: a name with a tag (default latest) or a digest, on Docker Hub if no registry is named.
func parse(op, text string) (name.Reference, error) {
	ref, err := name.ParseReference(strings.TrimPrefix(text, "docker://"))
	if err != nil || len(text) > 512 {
		return nil, &sandbox.Error{Code: sandbox.CodeInvalidArgument, Op: op, Message: fmt.Sprintf("%.80q is no reference to an image", text), Err: err,
			Hint: "write name:tag, registry.example/name:tag or name@sha256:…"}
	}
	return ref, nil
}

// CheckReference says whether text can name an image.
func CheckReference(text string) error { _, err := parse("name image", text); return err }

// HostPlatform is what images are chosen for when nothing else is said.
func HostPlatform() v1.Platform { return v1.Platform{OS: "linux", Architecture: runtime.GOARCH} }

type index struct {
	Version int     `json:"version"`
	Images  []Image `json:"images"`
}

const indexVersion = 1

func (s *Store) read(op string) (*index, error) {
	data, err := os.ReadFile(s.path(indexFile))
	if errors.Is(err, fs.ErrNotExist) {
		return &index{Version: indexVersion}, nil
	}
	if err != nil {
		return nil, sandbox.FileError(op, err)
	}
	var x index
	if err := json.Unmarshal(data, &x); err != nil || x.Version != indexVersion || len(data) > maxIndexBytes {
		return nil, &sandbox.Error{Code: sandbox.CodeInternal, Op: op, Message: fmt.Sprintf("%s can't be read: %v, version %d", s.path(indexFile), err, x.Version), Err: err,
			Hint: "move that file away and pull the images again; sandboxes go on"}
	}
	return &x, nil
}

// update changes the index.
func (s *Store) update(ctx context.Context, op string, change func(*index) error) error {
	lock, err := lockFile(ctx, op, s.path(indexLock), exclusive)
	if err != nil {
		return err
	}
	defer lock.Close()
	x, err := s.read(op)
	if err != nil {
		return err
	}
	before, err := json.MarshalIndent(x, "", "\t")
	if err != nil {
		return err
	}
	if err := change(x); err != nil {
		return err
	}
	data, err := json.MarshalIndent(x, "", "\t")
	if err != nil || bytes.Equal(data, before) {
		return err
	}
	return sandbox.FileError(op, replace(s.path(indexFile), data))
}

// replace writes a file in one step.
func replace(to string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(to), ".index-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), to)
}

// add enters an image and gives it a name, which no other has afterwards.
func (s *Store) add(ctx context.Context, op string, im Image, called Name) (Image, error) {
	err := s.update(ctx, op, func(x *index) error {
		for i := range x.Images {
			x.Images[i].Names = slices.DeleteFunc(x.Images[i].Names, func(n Name) bool { return n.Name == called.Name })
		}
		i := slices.IndexFunc(x.Images, func(o Image) bool { return o.ID == im.ID })
		if i < 0 {
			if len(x.Images) >= maxImages {
				return sandbox.Errf(sandbox.CodeImageInUse, op, fmt.Sprintf("there are %d images, and no more are kept", maxImages), "remove some: tongs image gc")
			}
			x.Images = append(x.Images, im)
			i = len(x.Images) - 1
		} else {
			im.Names, im.Added = x.Images[i].Names, x.Images[i].Added
			x.Images[i] = im
		}
		if called.Name != "" {
			x.Images[i].Names = append(x.Images[i].Names, called)
		}
		im = x.Images[i]
		return nil
	})
	return im, err
}

// List gives the images, those with names first, by name.
func (s *Store) List() ([]Image, error) {
	x, err := s.read("list images")
	if err != nil {
		return nil, err
	}
	slices.SortFunc(x.Images, func(a, b Image) int {
		if len(a.Names) == 0 != (len(b.Names) == 0) {
			return cmp.Compare(len(b.Names), len(a.Names))
		}
		return cmp.Or(cmp.Compare(a.String(), b.String()), cmp.Compare(a.ID, b.ID))
	})
	return x.Images, nil
}

// Find finds an image by its name, or by how its id or the digest of its manifest begins.
func (s *Store) Find(text string) (Image, error) {
	const op = "find image"
	all, err := s.List()
	if err != nil {
		return Image{}, err
	}
	im, _, err := find(op, all, text)
	return im, err
}

// find gives the image, and by which of its names it was found: "" for a digest.
func find(op string, all []Image, text string) (Image, string, error) {
	if ref, err := name.ParseReference(text); err == nil {
		for _, im := range all {
			for _, n := range im.Names {
				if n.Name == ref.Name() {
					return im, n.Name, nil
				}
			}
		}
	}
	var found []Image
	if hex := strings.TrimPrefix(text, "sha256:"); len(hex) >= 4 && strings.Trim(hex, "0123456789abcdef") == "" {
		for _, im := range all {
			if strings.HasPrefix(im.ID, "sha256:"+hex) || slices.ContainsFunc(im.Names, func(n Name) bool { return strings.HasPrefix(n.Digest, "sha256:"+hex) }) {
				found = append(found, im)
			}
		}
	}
	switch len(found) {
	case 1:
		return found[0], "", nil
	case 0:
		return Image{}, "", sandbox.Errf(sandbox.CodeImageNotFound, op, fmt.Sprintf("there is no image %.200q here", text), "`tongs image list` says which there are; `tongs image pull` gets others")
	}
	var names []string
	for _, im := range found[:min(len(found), 10)] {
		names = append(names, im.String())
	}
	return Image{}, "", sandbox.Errf(sandbox.CodeAmbiguousName, op, fmt.Sprintf("%.80q is the beginning of several: %s", text, strings.Join(names, ", ")), "write more of it")
}
