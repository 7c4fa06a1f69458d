package image

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/tongs-dev/tongs/internal/image/layer"
	"github.com/tongs-dev/tongs/sandbox"
)

// PullOptions say what to pull. The zero value will do.
type PullOptions struct {
	// Platform is os/architecture[/variant]; default this machine's.
	Platform string
	// Progress is told how far it is, by several goroutines.
	Progress func(Progress)
}

func (o PullOptions) platform(op string) (v1.Platform, error) {
	if o.Platform == "" {
		return HostPlatform(), nil
	}
	p, err := v1.ParsePlatform(o.Platform)
	if err != nil || p.OS == "" || p.Architecture == "" {
		return v1.Platform{}, &sandbox.Error{Code: sandbox.CodeInvalidArgument, Op: op, Message: fmt.Sprintf("%.80q is no platform", o.Platform), Hint: "write os/architecture, such as linux/arm64", Err: err}
	}
	if p.OS != "linux" {
		return v1.Platform{}, sandbox.Errf(sandbox.CodeImageNotSupported, op, "programs for "+p.OS+" don't run in sandboxes", "choose one for linux")
	}
	return *p, nil
}

// reporter makes progress safe to report from many goroutines; nil is nobody.
func reporter(report func(Progress)) func(Progress) {
	if report == nil {
		return func(Progress) {}
	}
	var mu sync.Mutex
	return func(p Progress) {
		mu.Lock()
		defer mu.Unlock()
		report(p)
	}
}

// Pull gets an image from its registry. What is here already isn't downloaded again, and a download that
// was cut off goes on.
func (s *Store) Pull(ctx context.Context, text string, opts PullOptions) (Image, error) {
	const op = "pull image"
	ref, err := parse(op, text)
	if err != nil {
		return Image{}, err
	}
	platform, err := opts.platform(op)
	if err != nil {
		return Image{}, err
	}
	release, err := s.share(ctx, op)
	if err != nil {
		return Image{}, err
	}
	defer release()
	report := reporter(opts.Progress)
	report(Progress{Step: "manifest"})
	m, err := s.client.Manifest(ctx, ref, platform)
	if err != nil {
		return Image{}, err
	}
	raw, err := s.client.Config(ctx, ref, m.Manifest)
	if err != nil {
		return Image{}, err
	}
	cfg, err := readConfig(op, ref.Name(), raw, platform)
	if err != nil {
		return Image{}, err
	}
	if len(cfg.RootFS.DiffIDs) != len(m.Layers) {
		return Image{}, sandbox.Errf(sandbox.CodeImageInvalid, op, fmt.Sprintf("%s: %d layers in its manifest, %d in its configuration", ref.Name(), len(m.Layers), len(cfg.RootFS.DiffIDs)), "do not trust this image")
	}
	parts := make([]part, len(m.Layers))
	for i, d := range m.Layers {
		parts[i] = part{diffID: cfg.RootFS.DiffIDs[i].String(), size: d.Size, open: func(ctx context.Context) (io.Reader, func(bool), error) {
			f, err := lockFile(ctx, op, s.path(blobsDir, d.Digest.Hex), exclusive)
			if err != nil {
				return nil, nil, err
			}
			short := ShortID(cfg.RootFS.DiffIDs[i].String())
			err = s.client.Blob(ctx, ref.Context(), d, f, func(n int64) { report(Progress{Step: "download", Layer: short, Done: n, Total: d.Size}) })
			if err == nil {
				_, err = f.Seek(0, io.SeekStart)
			}
			if err != nil {
				f.Close()
				return nil, nil, err
			}
			return f, func(keep bool) {
				if !keep {
					_ = os.Remove(f.Name()) // gc removes it otherwise
				}
				f.Close()
			}, nil
		}}
	}
	return s.finish(ctx, op, raw, cfg, parts, Name{ref.Name(), m.Digest}, report)
}

// readConfig reads and checks an image's configuration.
func readConfig(op, what string, raw []byte, platform v1.Platform) (*v1.ConfigFile, error) {
	cfg, err := v1.ParseConfigFile(bytes.NewReader(raw))
	if err != nil {
		return nil, &sandbox.Error{Code: sandbox.CodeImageInvalid, Op: op, Message: what + ": its configuration can't be read: " + err.Error(), Hint: "do not trust this image", Err: err}
	}
	for _, d := range cfg.RootFS.DiffIDs {
		if d.Algorithm != "sha256" || len(d.Hex) != 64 {
			return nil, sandbox.Errf(sandbox.CodeImageInvalid, op, fmt.Sprintf("%s: %q is no digest of a layer", what, d), "do not trust this image")
		}
	}
	if os, arch := cfg.OS, cfg.Architecture; os != "" && os != platform.OS || arch != "" && arch != platform.Architecture {
		return nil, sandbox.Errf(sandbox.CodeImageNotSupported, op, fmt.Sprintf("%s is for %s/%s, and %s is wanted", what, os, arch, platform), "take one for this machine; --platform takes another one all the same")
	}
	return cfg, nil
}

// finish makes the layers, and enters the image.
func (s *Store) finish(ctx context.Context, op string, raw []byte, cfg *v1.ConfigFile, parts []part, called Name, report func(Progress)) (Image, error) {
	held, err := s.need(ctx, op, parts, report)
	if err != nil {
		return Image{}, err
	}
	im := Image{ID: "sha256:" + digest(raw), Platform: strings.Trim(cfg.OS+"/"+cfg.Architecture, "/"), Created: cfg.Created.Time, Added: time.Now().UTC().Truncate(time.Second),
		Bytes: held.Bytes, Entries: held.Entries, Left: held.Left, Env: cfg.Config.Env, Names: []Name{}}
	if im.Platform == "" {
		im.Platform = HostPlatform().String()
	}
	for _, p := range parts {
		im.Layers = append(im.Layers, p.diffID)
	}
	u, err := layer.OpenUnion(s.lower(im))
	if err != nil {
		return Image{}, sandbox.FileError(op, err)
	}
	im.Shell, im.Tools = look(u, im.Env)
	u.Close()
	im, err = s.add(ctx, op, im, called)
	if err == nil {
		report(Progress{Step: "done"})
	}
	return im, err
}

// lower gives the directories of an image's layers, the topmost first. A layer that is there twice counts
// where it is highest: what it says there hides what it says below.
func (s *Store) lower(im Image) []string {
	var dirs []string
	seen := make(map[string]bool)
	for i := len(im.Layers) - 1; i >= 0; i-- {
		if dir := s.tree(im.Layers[i]); !seen[dir] {
			seen[dir] = true
			dirs = append(dirs, dir)
		}
	}
	return dirs
}
