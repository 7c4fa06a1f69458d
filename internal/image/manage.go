package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tongs-dev/tongs/internal/idmap"
	"github.com/tongs-dev/tongs/sandbox"
)

// removePatience is how long a removal waits for those who make or use images.
const removePatience = 10 * time.Second

// Use gives the root file system of an image for sandboxes, and pulls the image first if it isn't here.
// Until release is called, nobody removes any of it; a sandbox that has been made meanwhile keeps it, and
// so does a Pin.
func (s *Store) Use(ctx context.Context, text string, opts PullOptions) (root Root, im Image, release func(), err error) {
	const op = "use image"
	if release, err = s.share(ctx, op); err != nil {
		return Root{}, Image{}, nil, err
	}
	defer func() {
		if err != nil {
			release()
			release = nil
		}
	}()
	im, err = s.Find(text)
	if err == nil && s.complete(im) {
		root, err = s.root(ctx, op, im)
		return root, im, release, err
	}
	if code := sandbox.CodeOf(err); err != nil && code != sandbox.CodeImageNotFound {
		return Root{}, Image{}, nil, err
	}
	if im, err = s.Pull(ctx, text, opts); err == nil {
		root, err = s.root(ctx, op, im)
	}
	return root, im, release, err
}

// complete says whether all layers of an image are there.
func (s *Store) complete(im Image) bool {
	return !slices.ContainsFunc(im.Layers, func(d string) bool { _, err := s.result(d); return err != nil })
}

// Pin keeps a root file system from being removed until release is called or the process ends. It is called
// while the root is in Use.
func (s *Store) Pin(root Root) (release func(), err error) {
	const op = "keep image"
	f, err := os.CreateTemp(s.path(pinsDir), "pin-")
	if err == nil {
		_, err = tryLock(f, exclusive)
	}
	if err == nil {
		err = json.NewEncoder(f).Encode(root.Lower)
	}
	if err != nil {
		if f != nil {
			f.Close()
		}
		return nil, sandbox.FileError(op, err)
	}
	return func() { _ = os.Remove(f.Name()); f.Close() }, nil
}

// pinned reads what running processes keep, and removes what those have left that are gone.
func (s *Store) pinned() (roots []Root, err error) {
	entries, err := os.ReadDir(s.path(pinsDir))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		f, err := os.OpenFile(s.path(pinsDir, e.Name()), os.O_RDWR, 0)
		if err != nil {
			continue
		}
		var r Root
		if got, _ := tryLock(f, exclusive); got {
			_ = os.Remove(f.Name())
		} else if err := json.NewDecoder(f).Decode(&r.Lower); err == nil {
			roots = append(roots, r)
		}
		f.Close()
	}
	return roots, nil
}

// User is a sandbox that uses an image.
type User struct {
	Sandbox string // what people call it
	Root    Root
}

// uses says whether a root file system is one of an image.
func uses(root Root, im Image) bool { return strings.HasPrefix(root.ID, im.ID+"-") }

// Removed says what was removed.
type Removed struct {
	Names  []string `json:"names"`  // that no image has any more
	Images []string `json:"images"` // ids
	Layers int      `json:"layers"`
	Bytes  int64    `json:"bytes"` // of files
}

// Remove removes a name; and with its last name, or when it is named by its digest, an image with the layers
// that nothing else needs. An image that sandboxes use is IMAGE_IN_USE unless force is set; then it has no
// name any more, and goes with the last of them.
func (s *Store) Remove(ctx context.Context, text string, users []User, force bool) (Removed, error) {
	const op = "remove image"
	var done Removed
	lock, err := s.alone(ctx, op)
	if err != nil {
		return done, err
	}
	defer lock()
	pins, err := s.pinned()
	if err != nil {
		return done, sandbox.FileError(op, err)
	}
	var left index
	err = s.update(ctx, op, func(x *index) error {
		im, called, err := find(op, x.Images, text)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(x.Images, func(o Image) bool { return o.ID == im.ID })
		if called != "" && len(im.Names) > 1 {
			x.Images[i].Names = slices.DeleteFunc(x.Images[i].Names, func(n Name) bool { return n.Name == called })
			done.Names = []string{called}
			left = *x
			return nil
		}
		var by []string
		for _, u := range users {
			if uses(u.Root, im) {
				by = append(by, u.Sandbox)
			}
		}
		if len(by) > 0 && !force {
			slices.Sort(by)
			more := ""
			if len(by) > 10 {
				more = fmt.Sprintf(" and %d more", len(by)-10)
			}
			return sandbox.Errf(sandbox.CodeImageInUse, op, fmt.Sprintf("%s is used by %s%s", im, strings.Join(by[:min(len(by), 10)], ", "), more),
				"destroy them first, or use --force: it is forgotten then, and its files go with `tongs image gc` when nothing uses them")
		}
		for _, n := range im.Names {
			done.Names = append(done.Names, n.Name)
		}
		done.Images = []string{im.ID}
		x.Images = slices.Delete(x.Images, i, i+1)
		left = *x
		return nil
	})
	if err != nil {
		return done, err
	}
	return done, s.sweep(ctx, op, left, users, pins, &done)
}

// alone keeps everybody from making and using images.
func (s *Store) alone(ctx context.Context, op string) (func(), error) {
	ctx, cancel := context.WithTimeout(ctx, removePatience)
	defer cancel()
	f, err := lockFile(ctx, op, s.path(storeLock), exclusive)
	if err != nil {
		return nil, err
	}
	return func() { f.Close() }, nil
}

// GC removes images without a name, layers that no image, sandbox or running process needs, and what
// downloads have left; and old trees of the host image.
func (s *Store) GC(ctx context.Context, users []User) (Removed, error) {
	const op = "clean up images"
	var done Removed
	lock, err := s.alone(ctx, op)
	if err != nil {
		return done, err
	}
	defer lock()
	s.removeUnfinished(ctx)
	pins, err := s.pinned()
	if err != nil {
		return done, sandbox.FileError(op, err)
	}
	blobs, err := os.ReadDir(s.path(blobsDir))
	if err != nil {
		return done, sandbox.FileError(op, err)
	}
	for _, e := range blobs {
		if info, err := e.Info(); err == nil {
			done.Bytes += info.Size()
		}
		if err := os.Remove(s.path(blobsDir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return done, sandbox.FileError(op, err)
		}
	}
	if err := s.hostImages(ctx, op, users, pins, &done); err != nil {
		return done, err
	}
	// On a full disk the index can't be written before something has gone.
	now, err := s.read(op)
	if err != nil {
		return done, err
	}
	if err := s.sweep(ctx, op, *now, users, pins, &done); err != nil {
		return done, err
	}
	var left index
	err = s.update(ctx, op, func(x *index) error {
		x.Images = slices.DeleteFunc(x.Images, func(im Image) bool {
			gone := len(im.Names) == 0 && !slices.ContainsFunc(users, func(u User) bool { return uses(u.Root, im) })
			if gone {
				done.Images = append(done.Images, im.ID)
			}
			return gone
		})
		left = *x
		return nil
	})
	if err != nil {
		return done, err
	}
	return done, s.sweep(ctx, op, left, users, pins, &done)
}

// hostImages removes trees of the host image that no sandbox and no running process needs, an hour after they
// were made; the one of now is made again in a moment.
func (s *Store) hostImages(ctx context.Context, op string, users []User, pins []Root, done *Removed) error {
	needed := make(map[string]bool)
	for _, u := range users {
		pins = append(pins, u.Root)
	}
	for _, r := range pins {
		for _, dir := range r.Lower {
			needed[filepath.Base(dir)] = true
		}
	}
	entries, err := os.ReadDir(s.cfg.Dir)
	if err != nil {
		return sandbox.FileError(op, err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !e.IsDir() || !strings.HasPrefix(e.Name(), hostPrefix) || needed[e.Name()] || time.Since(info.ModTime()) < staleAfter {
			continue
		}
		if err := idmap.RemoveAll(ctx, s.ids, s.path(e.Name())); err != nil {
			return sandbox.FileError(op, err)
		}
		done.Images = append(done.Images, e.Name())
	}
	return nil
}

// sweep removes the layers that nobody needs.
func (s *Store) sweep(ctx context.Context, op string, x index, users []User, pins []Root, done *Removed) error {
	needed := make(map[string]bool)
	for _, im := range x.Images {
		for _, d := range im.Layers {
			needed[s.layerName(d)] = true
		}
	}
	for _, u := range users {
		pins = append(pins, u.Root)
	}
	for _, r := range pins {
		for _, dir := range r.Lower {
			needed[filepath.Base(filepath.Dir(dir))] = true
		}
	}
	entries, err := os.ReadDir(s.path(layersDir))
	if err != nil {
		return sandbox.FileError(op, err)
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		layerOf, isLock := strings.CutPrefix(e.Name(), ".lock-")
		if isLock && !needed[layerOf] {
			_ = os.Remove(s.path(layersDir, e.Name())) // an empty file
		}
		if !e.IsDir() || needed[e.Name()] {
			continue
		}
		dir := s.path(layersDir, e.Name())
		var held struct{ Bytes int64 }
		if data, err := os.ReadFile(filepath.Join(dir, layerFile)); err == nil {
			_ = json.Unmarshal(data, &held)
		}
		// Without its description it is no layer any more, however far its removal comes.
		if err := os.Remove(filepath.Join(dir, layerFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return sandbox.FileError(op, err)
		}
		if err := idmap.RemoveAll(ctx, s.ids, dir); err != nil {
			return sandbox.FileError(op, err)
		}
		done.Layers++
		done.Bytes += held.Bytes
	}
	return nil
}
