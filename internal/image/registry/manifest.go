package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/tongs-dev/tongs/sandbox"
)

var manifestTypes = []string{
	string(types.OCIManifestSchema1), string(types.DockerManifestSchema2), string(types.OCIImageIndex), string(types.DockerManifestList),
}

// maxNesting bounds indexes of indexes.
const maxNesting = 3

// Manifest is what a reference leads to.
type Manifest struct {
	*v1.Manifest
	// Digest is of what the reference names: the index, where there is one.
	Digest string
}

// Manifest finds the manifest of an image for a platform.
func (c *Client) Manifest(ctx context.Context, ref name.Reference, platform v1.Platform) (*Manifest, error) {
	const op = "pull image"
	var first string
	identifier := ref.Identifier()
	for range maxNesting {
		data, digest, header, err := c.small(ctx, op, ref, "manifests/"+identifier, maxManifest, manifestTypes)
		if err != nil {
			return nil, err
		}
		if _, err := v1.NewHash(identifier); err == nil && identifier != digest {
			return nil, invalid(op, "%s: the registry sends another manifest than the one that was asked for", ref.Name())
		}
		if first == "" {
			first = digest
		}
		m, next, err := ReadManifest(data, header.Get("Content-Type"), platform)
		if err != nil {
			return nil, wrap(op, ref.Name(), err)
		}
		if m != nil {
			return &Manifest{m, first}, nil
		}
		identifier = next
	}
	return nil, invalid(op, "%s: indexes of indexes, more than %d deep", ref.Name(), maxNesting)
}

// wrap says which image an error is about.
func wrap(op, ref string, err error) error {
	if e, ok := err.(*sandbox.Error); ok {
		return &sandbox.Error{Code: e.Code, Op: op, Message: ref + ": " + e.Message, Hint: e.Hint, Err: e.Err}
	}
	return invalid(op, "%s: %v", ref, err)
}

// ReadManifest reads a manifest, or an index, of which it gives the digest of the manifest for a platform.
func ReadManifest(data []byte, contentType string, platform v1.Platform) (*v1.Manifest, string, error) {
	const op = "read manifest"
	var kind struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     string          `json:"mediaType"`
		Manifests     json.RawMessage `json:"manifests"`
		Config        json.RawMessage `json:"config"`
	}
	if err := json.Unmarshal(data, &kind); err != nil {
		return nil, "", invalid(op, "the manifest is no JSON: %v", err)
	}
	switch {
	case kind.SchemaVersion == 1 || strings.Contains(cmpOr(kind.MediaType, contentType), "docker.distribution.manifest.v1"):
		return nil, "", sandbox.Errf(sandbox.CodeImageNotSupported, op, "the image has a manifest of Docker's first version, which is no more in use", "push it again with a newer program")
	case kind.Manifests != nil:
		index, err := v1.ParseIndexManifest(bytes.NewReader(data))
		if err != nil {
			return nil, "", invalid(op, "the index can't be read: %v", err)
		}
		digest, err := choose(index, platform)
		return nil, digest, err
	case kind.Config == nil:
		return nil, "", sandbox.Errf(sandbox.CodeImageNotSupported, op, fmt.Sprintf("%q is no image", cmpOr(kind.MediaType, contentType)), "name an image for containers")
	}
	m, err := v1.ParseManifest(bytes.NewReader(data))
	if err != nil {
		return nil, "", invalid(op, "the manifest can't be read: %v", err)
	}
	return m, "", Check(m)
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// MaxLayers is how many layers an image may have. A sandbox takes 128 directories, of which one is ours and one a project's.
const MaxLayers = 126

// MaxBytes is how large the layers of an image may be together, compressed: 64 GiB.
const MaxBytes = 64 << 30

// Check says what is wrong with a manifest.
func Check(m *v1.Manifest) error {
	const op = "read manifest"
	switch m.Config.MediaType {
	case types.OCIConfigJSON, types.DockerConfigJSON:
	default:
		return sandbox.Errf(sandbox.CodeImageNotSupported, op, fmt.Sprintf("it holds %q and is no image for containers", m.Config.MediaType), "name an image for containers")
	}
	if len(m.Layers) > MaxLayers {
		return sandbox.Errf(sandbox.CodeImageNotSupported, op, fmt.Sprintf("it has %d layers, the most is %d", len(m.Layers), MaxLayers), "make an image of fewer (docker build --squash)")
	}
	total := int64(0)
	for _, l := range append(slices.Clone(m.Layers), m.Config) {
		if l.Size < 0 || l.Digest.Algorithm != "sha256" || len(l.Digest.Hex) != 64 {
			return invalid(op, "the manifest names a part of %d bytes by %q", l.Size, l.Digest)
		}
		if total += l.Size; total > MaxBytes || total < 0 {
			return sandbox.Errf(sandbox.CodeArchiveTooLarge, op, fmt.Sprintf("its layers are more than %d GiB", int64(MaxBytes)>>30), "use a smaller image")
		}
		if !l.MediaType.IsDistributable() && l.MediaType.IsLayer() {
			return sandbox.Errf(sandbox.CodeImageNotSupported, op, "one of its layers may not be distributed, and is elsewhere", "use another image")
		}
	}
	return nil
}

// choose finds the image for a platform in an index.
func choose(index *v1.IndexManifest, want v1.Platform) (string, error) {
	var there []string
	best := ""
	for _, m := range index.Manifests {
		p := m.Platform
		if m.MediaType != "" && !m.MediaType.IsImage() && !m.MediaType.IsIndex() || p != nil && p.OS == "unknown" {
			continue // what says where an image comes from, for instance
		}
		if p == nil {
			if best == "" && len(index.Manifests) == 1 {
				best = m.Digest.String()
			}
			continue
		}
		there = append(there, p.String())
		if p.OS != want.OS || p.Architecture != want.Architecture {
			continue
		}
		if want.Variant != "" && p.Variant == want.Variant || best == "" && (want.Variant == "" || p.Variant == "") {
			best = m.Digest.String()
		}
	}
	if best != "" {
		return best, nil
	}
	slices.Sort(there)
	return "", sandbox.Errf(sandbox.CodeImageNotSupported, "read manifest", fmt.Sprintf("there is no image for %s; there are %s", want, cmpOr(strings.Join(slices.Compact(there), ", "), "none")),
		"choose one of them with --platform, if this machine runs its programs")
}
