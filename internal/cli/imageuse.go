package cli

import (
	"context"
	"path/filepath"
	"slices"

	"github.com/tongs-dev/tongs/internal/fleet"
	"github.com/tongs-dev/tongs/internal/image"
)

// images are the root file systems of a running service.
type images struct {
	store *image.Store
	host  image.Root
	unpin []func()
}

// openRoots makes the host image, and what sessions' sandboxes are made from: the image of the
// configuration, pulled if need be, else the host image too.
func (s *service) openRoots(ctx context.Context, opts startOptions) (host, sessions image.Root, err error) {
	var notes []image.Note
	host, notes, err = image.Host(ctx, image.HostConfig{Dir: filepath.Join(s.cfg.Home, "images")})
	if err != nil {
		return host, host, err
	}
	for _, note := range notes {
		s.log.Debug("host image", "subject", note.Subject, "visible", note.Visible, "detail", note.Detail)
	}
	if s.images.store, err = openImages(s.cfg); err != nil {
		return host, host, err
	}
	s.images.host = host
	unpin, err := s.images.store.Pin(host)
	if err != nil {
		return host, host, err
	}
	s.images.unpin = append(s.images.unpin, unpin)
	if s.cfg.imageName() == fleet.HostImage {
		return host, host, nil
	}
	p := newImageProgress(&streams{stderr: opts.status}, false, s.cfg.Image)
	root, im, release, err := s.images.store.Use(ctx, s.cfg.Image, image.PullOptions{Progress: p.report})
	p.end()
	if err != nil {
		return host, host, err
	}
	defer release()
	if unpin, err = s.images.store.Pin(root); err != nil {
		return host, host, err
	}
	s.images.unpin = append(s.images.unpin, unpin)
	for _, note := range imageNotes(im) {
		s.notes = append(s.notes, "image "+printable(im.String())+": "+note)
	}
	return host, root, nil
}

// root gives the root file system of an image for one sandbox; release is called when that has been made.
func (i *images) root(ctx context.Context, name string) (image.Root, func(), error) {
	if name == fleet.HostImage {
		return i.host, func() {}, nil
	}
	root, _, release, err := i.store.Use(ctx, name, image.PullOptions{})
	return root, release, err
}

func (i *images) close() {
	for _, unpin := range slices.Backward(i.unpin) {
		unpin()
	}
	if i.store != nil {
		i.store.Close()
	}
}

// imageName is the image of sessions' sandboxes, and of others for which nothing else is said.
func (c *Config) imageName() string { return cmpOr(c.Image, fleet.HostImage) }

// pullFor gets an image that a sandbox is to be made from, with progress for the person who waits, when the
// service uses this home. It is left to the service otherwise.
func (a *APIFlags) pullFor(ctx context.Context, s *streams, g *Globals, name string) error {
	if a.API != "" || name == "" || name == fleet.HostImage {
		return nil
	}
	return withImages(g, func(_ *Config, store *image.Store) error {
		p := newImageProgress(s, false, name)
		_, _, release, err := store.Use(ctx, name, image.PullOptions{Progress: p.report})
		p.end()
		if err == nil {
			release()
		}
		return err
	})
}
