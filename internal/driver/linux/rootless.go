//go:build linux

package linux

import (
	"context"
	"os"
	"path/filepath"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/idmap"
	"github.com/tongs-dev/tongs/internal/image"
	"github.com/tongs-dev/tongs/sandbox"
)

// What is done in a sandbox's directory with the sandbox's ids, which an ordinary user doesn't have
// itself: by this program in a process of its own.
var layOutTask = idmap.Task{Name: "driver/linux.layOut"}

func init() {
	layOutTask.Serve(func(ctx context.Context, argument func(any) error) error {
		var w idWork
		if err := argument(&w); err != nil {
			return err
		}
		return w.do(ctx)
	})
}

// idWork is the argument of layOutTask.
type idWork struct {
	Dir    string        `json:"dir"`
	Record record        `json:"record"`
	Files  []driver.File `json:"files,omitempty"`
	Made   bool          `json:"made,omitempty"` // the tree is there: only Files and the places of binds are to be made
	From   *idSource     `json:"from,omitempty"`
}

// idSource is the sandbox whose files a new one starts with.
type idSource struct {
	ID     string `json:"id"`
	Dir    string `json:"dir"`
	Record record `json:"record"`
}

// do lays a sandbox out, in the process that has its ids.
func (w idWork) do(ctx context.Context) error {
	r := w.Record.inside()
	if !w.Made {
		var from *source
		if w.From != nil {
			from = &source{id: w.From.ID, dir: w.From.Dir, record: w.From.Record.inside()}
		}
		if err := layOutTree(ctx, w.Dir, r, from); err != nil {
			return err
		}
	}
	return prepareUnmounted(w.Dir, r, w.Files)
}

// prepareUnmounted is prepare for a sandbox kept in dir whose guest mounts its root itself.
func prepareUnmounted(dir string, r record, files []driver.File) error {
	if r.Copied {
		return prepare(filepath.Join(dir, rootDir), nil, r, files)
	}
	return prepare(filepath.Join(dir, upperDir), r.Spec.Image.Lower, r, files)
}

// inside is the record as the process sees it that has the sandbox's ids: they begin at 0 there.
func (r record) inside() record {
	r.Base, r.Owner, r.within = 0, 0, true
	return r
}

// userMarks says whether the overlay notes what it has to in attributes that users may have.
func (r record) userMarks() bool { return r.rootless() || r.within }

// mapped says whether a sandbox of an ordinary user has a range of ids.
func (r record) mapped() bool { return r.rootless() && !r.Spec.Image.Map.None() }

// layOutMapped makes the tree of a sandbox with a range of ids, the files that it starts with and the places
// for its binds.
func layOutMapped(ctx context.Context, dir string, r record, from *source, files []driver.File) error {
	// The guest has a sandbox's id by the time it looks for its layers here. Nobody gets here who can't
	// enter the directories above.
	if err := os.Chmod(dir, 0o711); err != nil {
		return err
	}
	w := idWork{Dir: dir, Record: r, Files: files}
	if from != nil {
		w.From = &idSource{from.id, from.dir, from.record}
	}
	return layOutTask.Run(ctx, r.Spec.Image.Map, w, idmap.Streams{})
}

// placesMapped makes the places for the binds of a sandbox that is started again.
func placesMapped(ctx context.Context, dir string, r record) error {
	if len(r.Spec.Binds) == 0 {
		return nil
	}
	return layOutTask.Run(ctx, r.Spec.Image.Map, idWork{Dir: dir, Record: r, Made: true}, idmap.Streams{})
}

// removeTree removes a sandbox's directory. Its files may belong to the ids of a map, also when the record
// that names it was never written.
func (d *Driver) removeTree(ctx context.Context, dir string) error {
	if !d.rootless {
		return removeAll(dir)
	}
	r, err := readRecord(dir)
	m := r.Spec.Image.Map
	if err != nil {
		if removeAll(dir) == nil {
			return nil
		}
		if m, err = idmap.Find(); err != nil {
			return err
		}
	}
	if m.None() {
		return removeAll(dir)
	}
	return idmap.RemoveAll(ctx, m, dir)
}

// checkMap says whether this process can make sandboxes with an image's ids.
func (d *Driver) checkMap(op string, root image.Root) error {
	switch {
	case root.Map.None():
		return nil
	case !d.rootless:
		return &sandbox.Error{Code: driver.CodeUnsupported, Op: op, Message: "image \"" + root.ID + "\" was written with the user ids of an ordinary user",
			Hint: "make it again as root, in a TONGS_HOME of root's"}
	}
	if err := root.Map.Check(); err != nil {
		return driver.Invalid(op, "image %q: %v", root.ID, err)
	}
	return nil
}
