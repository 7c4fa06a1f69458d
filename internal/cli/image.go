package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/tongs-dev/tongs"
	"github.com/tongs-dev/tongs/internal/image"
	"github.com/tongs-dev/tongs/internal/image/registry"
	"github.com/tongs-dev/tongs/sandbox"
)

// imageCommand is everything under `tongs image`. It works on the home, whether a service runs there or not.
type imageCommand struct {
	Pull    imagePullCommand    `cmd:"" help:"Get an image from its registry."`
	Import  imageImportCommand  `cmd:"" help:"Take an image, or a root file system, from the disk."`
	List    imageListCommand    `cmd:"" aliases:"ls" help:"List the images."`
	Inspect imageInspectCommand `cmd:"" help:"Say what is known of an image."`
	Rm      imageRmCommand      `cmd:"" help:"Remove images."`
	GC      imageGCCommand      `cmd:"" name:"gc" help:"Remove what nothing needs any more."`
}

// Help is the long help text.
func (imageCommand) Help() string {
	return `An image is what sandboxes are made from, besides "host", the host's own toolchain: name one with
"tongs up --image" or "tongs sandbox create --image". One that is not here is pulled then.

Images are named as elsewhere (debian:12, ghcr.io/owner/name@sha256:…), here also by how their ids begin.
Credentials are those of "docker login". docs/images.md says what an image becomes.

EXIT STATUS
  0  it was done
  1  it could not be done; the message says why and what to do
  2  wrong usage`
}

const imageStatus = `EXIT STATUS
  0  it was done
  1  it could not be done
  2  wrong usage`

// openImages opens the home's images.
func openImages(cfg *Config) (*image.Store, error) {
	if _, err := openHome(cfg.Home); err != nil {
		return nil, err
	}
	return image.OpenStore(image.StoreConfig{Dir: filepath.Join(cfg.Home, "images"), Registry: registry.Options{UserAgent: "tongs/" + tongs.Version}})
}

// withImages runs do with the home's images.
func withImages(g *Globals, do func(*Config, *image.Store) error) error {
	cfg, err := g.load()
	if err != nil {
		return err
	}
	store, err := openImages(cfg)
	if err != nil {
		return err
	}
	defer store.Close()
	return do(cfg, store)
}

type imagePullCommand struct {
	Image    string `arg:"" help:"Such as debian:12."`
	Platform string `placeholder:"OS/ARCH" help:"Default: this machine's."`
	JSON     bool   `name:"json" help:"Print JSON: one object a line that says how far it is, and at last the image."`
}

// Help is the long help text.
func (imagePullCommand) Help() string {
	return `What is here already is not downloaded again, and what was cut off goes on where it was.

` + imageStatus
}

// Run pulls an image.
func (c *imagePullCommand) Run(ctx context.Context, s *streams, g *Globals) error {
	return withImages(g, func(_ *Config, store *image.Store) error {
		p := newImageProgress(s, c.JSON, c.Image)
		im, err := store.Pull(ctx, c.Image, image.PullOptions{Platform: c.Platform, Progress: p.report})
		p.end()
		if err != nil {
			return err
		}
		return printImage(s, im, c.JSON)
	})
}

type imageImportCommand struct {
	File     string `arg:"" type:"path" help:"An archive, or a directory with an OCI layout."`
	Name     string `placeholder:"NAME" help:"What it is called. Default: as it says itself, else as its file is called."`
	Platform string `placeholder:"OS/ARCH" help:"Default: this machine's."`
	JSON     bool   `name:"json" help:"Print JSON: one object a line that says how far it is, and at last the image."`
}

// Help is the long help text.
func (imageImportCommand) Help() string {
	return `It takes what "docker save" and "podman save" write, OCI layouts, and archives of root file systems such as
"docker export", debootstrap and mmdebstrap make, plain or compressed with gzip or zstd:

  mmdebstrap bookworm debian.tar && tongs image import debian.tar

` + imageStatus
}

// Run imports an image.
func (c *imageImportCommand) Run(ctx context.Context, s *streams, g *Globals) error {
	return withImages(g, func(_ *Config, store *image.Store) error {
		p := newImageProgress(s, c.JSON, filepath.Base(c.File))
		im, err := store.Import(ctx, c.File, image.ImportOptions{Name: c.Name, PullOptions: image.PullOptions{Platform: c.Platform, Progress: p.report}})
		p.end()
		if err != nil {
			return err
		}
		return printImage(s, im, c.JSON)
	})
}

// printImage prints the name of a new image, and what is to be known of it.
func printImage(s *streams, im image.Image, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(s.stdout).Encode(map[string]image.Image{"image": im})
	}
	for _, note := range imageNotes(im) {
		fmt.Fprintln(s.stderr, note)
	}
	_, err := fmt.Fprintln(s.stdout, printable(im.String()))
	return err
}

// imageNotes says what people might miss in an image.
func imageNotes(im image.Image) []string {
	var notes []string
	switch missing := im.Missing(); {
	case im.Shell == "":
		notes = append(notes, "there is no shell in it: models' commands need one")
	case len(missing) > 0:
		more := ""
		if !strings.HasSuffix(im.Shell, "bash") {
			more = "; commands are run by " + printable(im.Shell)
		}
		notes = append(notes, "not in it: "+strings.Join(missing, ", ")+more)
	}
	l := im.Left
	for _, left := range []struct {
		n    int64
		what string
	}{
		{l.Devices, "device nodes were left out: a sandbox has a /dev of its own"},
		{l.Setuid, "files lost a setuid or setgid bit: nobody gains rights in a sandbox"},
		{l.Attributes, "extended attributes, such as file capabilities, were left out"},
		{l.Owners, "files belong to nobody: their owners' ids are beyond 65535"},
	} {
		if left.n > 0 {
			notes = append(notes, fmt.Sprintf("%d %s", left.n, left.what))
		}
	}
	return notes
}

type imageListCommand struct {
	Quiet bool `short:"q" help:"Only names (ids of those that have none), one a line."`
	JSON  bool `name:"json" help:"Print one JSON array."`
}

// Help is the long help text.
func (imageListCommand) Help() string { return imageStatus }

// Run lists the images.
func (c *imageListCommand) Run(_ context.Context, s *streams, g *Globals) error {
	return withImages(g, func(_ *Config, store *image.Store) error {
		all, err := store.List()
		if err != nil {
			return err
		}
		if c.JSON {
			if all == nil {
				all = []image.Image{}
			}
			return json.NewEncoder(s.stdout).Encode(all)
		}
		if len(all) == 0 && !c.Quiet {
			_, err := fmt.Fprintln(s.stderr, "there are no images: `tongs image pull` and `tongs image import` get some; without one, sandboxes have the host's toolchain")
			return err
		}
		lines := func(w io.Writer) {
			for _, im := range all {
				names := im.Names
				if len(names) == 0 {
					names = []image.Name{{Name: "-"}}
				}
				for _, n := range names {
					if c.Quiet {
						if n.Name == "-" {
							n.Name = image.ShortID(im.ID)
						}
						fmt.Fprintln(w, printable(image.Familiar(n.Name)))
						continue
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\n", printable(image.Familiar(n.Name)), image.ShortID(im.ID), printable(im.Platform), len(im.Layers), size(im.Bytes), ago(im.Added))
				}
			}
		}
		if c.Quiet {
			lines(s.stdout)
			return nil
		}
		return table(s.stdout, func(w io.Writer) {
			fmt.Fprintln(w, "NAME\tID\tPLATFORM\tLAYERS\tSIZE\tADDED")
			lines(w)
		})
	})
}

type imageInspectCommand struct {
	Image string `arg:"" help:"Its name, or how its id begins."`
	JSON  bool   `name:"json" help:"Print one JSON object."`
}

// Help is the long help text.
func (imageInspectCommand) Help() string { return imageStatus }

// Run describes an image.
func (c *imageInspectCommand) Run(_ context.Context, s *streams, g *Globals) error {
	return withImages(g, func(_ *Config, store *image.Store) error {
		im, err := store.Find(c.Image)
		if err != nil {
			return err
		}
		if c.JSON {
			return json.NewEncoder(s.stdout).Encode(im)
		}
		return table(s.stdout, func(w io.Writer) {
			fmt.Fprintf(w, "id\t%s\n", im.ID)
			for _, n := range im.Names {
				fmt.Fprintf(w, "name\t%s\n", printable(image.Familiar(n.Name)))
				if n.Digest != "" {
					fmt.Fprintf(w, "\tof manifest %s\n", n.Digest)
				}
			}
			fmt.Fprintf(w, "platform\t%s\n", printable(im.Platform))
			if !im.Created.IsZero() {
				fmt.Fprintf(w, "created\t%s\n", im.Created.Local().Format(time.DateTime))
			}
			fmt.Fprintf(w, "added\t%s\n", im.Added.Local().Format(time.DateTime))
			fmt.Fprintf(w, "size\t%s, %d files in %d layers\n", size(im.Bytes), im.Entries, len(im.Layers))
			for _, d := range im.Layers {
				fmt.Fprintf(w, "layer\t%s\n", d)
			}
			for _, kv := range im.Env {
				fmt.Fprintf(w, "variable\t%s\n", printable(kv))
			}
			fmt.Fprintf(w, "shell\t%s\n", cmp.Or(printable(im.Shell), "none"))
			for _, t := range im.Tools {
				if t.Path != "" {
					fmt.Fprintf(w, "tool\t%s\n", printable(t.Path))
				}
			}
			for _, note := range imageNotes(im) {
				fmt.Fprintf(w, "note\t%s\n", note)
			}
		})
	})
}

type imageRmCommand struct {
	Images []string `arg:"" help:"Names, or how ids begin."`
	Force  bool     `short:"f" help:"Also what sandboxes use: it is forgotten, and goes when they are gone."`
	JSON   bool     `name:"json" help:"Print one JSON object for each."`
}

// Help is the long help text.
func (imageRmCommand) Help() string {
	return `Of an image with several names, the one that is given is taken away; with the last one goes the image.

` + imageStatus
}

// Run removes images.
func (c *imageRmCommand) Run(ctx context.Context, s *streams, g *Globals) error {
	return withImages(g, func(cfg *Config, store *image.Store) error {
		users, err := imageUsers(ctx, cfg, s)
		if err != nil {
			return err
		}
		for _, text := range c.Images {
			done, err := store.Remove(ctx, text, users, c.Force)
			if err != nil {
				return err
			}
			if err := printRemoved(s, done, c.JSON); err != nil {
				return err
			}
		}
		return nil
	})
}

type imageGCCommand struct {
	JSON bool `name:"json" help:"Print one JSON object."`
}

// Help is the long help text.
func (imageGCCommand) Help() string {
	return `Removes images that have no name any more and that no sandbox uses, layers that nothing needs, what downloads have
left that were cut off, and old trees of the host image.

` + imageStatus
}

// Run cleans up.
func (c *imageGCCommand) Run(ctx context.Context, s *streams, g *Globals) error {
	return withImages(g, func(cfg *Config, store *image.Store) error {
		users, err := imageUsers(ctx, cfg, s)
		if err != nil {
			return err
		}
		done, err := store.GC(ctx, users)
		if err != nil {
			return err
		}
		return printRemoved(s, done, c.JSON)
	})
}

func printRemoved(s *streams, done image.Removed, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(s.stdout).Encode(done)
	}
	for _, n := range done.Names {
		fmt.Fprintln(s.stdout, "removed name "+printable(image.Familiar(n)))
	}
	for _, id := range done.Images {
		fmt.Fprintln(s.stdout, "removed image "+image.ShortID(id))
	}
	_, err := fmt.Fprintf(s.stdout, "%d layers removed, %s\n", done.Layers, size(done.Bytes))
	return err
}

// imageUsers are the home's sandboxes, with what they are made from.
func imageUsers(ctx context.Context, cfg *Config, s *streams) ([]image.User, error) {
	d, err := newDriver(cfg, cfg.logger(s.stderr))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	all, err := d.List(ctx)
	if err != nil {
		return nil, err
	}
	var users []image.User
	for _, st := range all {
		if st.Damaged != "" {
			return nil, sandbox.Errf(sandbox.CodeImageInUse, "look at sandboxes", fmt.Sprintf("sandbox %s is damaged, so nobody knows what it needs: %s", st.ID, st.Damaged),
				"destroy it first: `tongs sandbox rm "+st.ID+"`")
		}
		users = append(users, image.User{Sandbox: cmp.Or(st.Labels["tongs.name"], st.Labels["tongs.session"], st.ID), Root: st.Image})
	}
	return users, nil
}
