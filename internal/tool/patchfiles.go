package tool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/tongs-dev/tongs/internal/files"
	"github.com/tongs-dev/tongs/sandbox"
)

// Patch carries out a patch on the files below a directory: all of it, or, when
// something does not fit or fails, nothing. It reads unified diffs, git's among
// them, and the language of apply_patch. strip is how many parts are taken off
// the paths of a unified diff; 0 takes git's a/ and b/ off where they are.
//
// Paths are relative and don't lead out of dir. A patch of at most 32 MiB changes
// files of at most 32 MiB, and of 128 MiB together. Errors are a *sandbox.Error
// without operation: CodePatchFailed when the patch can't be read or does not fit.
func Patch(ctx context.Context, dir, patch string, strip int) ([]sandbox.PatchedFile, error) {
	if len(patch) > maxPatchText {
		return nil, failf(sandbox.CodeFileTooLarge, "the patch is larger than %d MiB", maxPatchText>>20)
	}
	tree := &patchTree{ctx: ctx, files: map[string]*patchFile{}}
	p := patching{dir: filepath.Clean(dir), tree: tree}
	var err error
	if isPatchLanguage(patch) {
		err = p.sections(patch)
	} else {
		err = p.unified(patch, strip)
	}
	if err != nil {
		return nil, patchFailure(err)
	}
	if len(p.done) == 0 {
		return nil, patchFailure(patchError("there is nothing to change in it"))
	}
	unlock, err := lockPaths(ctx, tree.order...)
	if err != nil {
		return nil, err
	}
	defer unlock()
	undo, err := chmod(p.modes)
	if err != nil {
		return nil, err
	}
	// What was read before the lock is compared again.
	if err := commit(ctx, tree.changes()); err != nil {
		undo()
		return nil, err
	}
	return p.done, nil
}

func isPatchLanguage(text string) bool {
	for line := range strings.Lines(text) {
		switch line = trim(line); {
		case line == "*** Begin Patch":
			return true
		case strings.HasPrefix(line, "--- "), strings.HasPrefix(line, "diff "):
			return false
		}
	}
	return false
}

func patchFailure(err error) error {
	var said patchError
	if errors.As(err, &said) {
		return &sandbox.Error{Code: sandbox.CodePatchFailed, Message: "the patch can't be applied: " + clean(shorten(string(said), 2000)), Hint: "nothing was changed"}
	}
	var e *sandbox.Error
	if !errors.As(err, &e) {
		return err
	}
	c := *e
	c.Message, _ = strings.CutPrefix(e.Message, "apply_patch verification failed: ")
	c.Message = strings.TrimPrefix(c.Message, "Error: ")
	if c.Hint = "nothing was changed"; c.Code == sandbox.CodeInvalidArgument {
		c.Code = sandbox.CodePatchFailed
	}
	return &c
}

// patching works a patch out in memory.
type patching struct {
	dir   string
	tree  *patchTree
	modes []modeChange
	done  []sandbox.PatchedFile
}

// path makes a path of the patch absolute.
func (p *patching) path(name string) (string, error) {
	if strings.ContainsRune(name, 0) || len(name) >= maxPath || !filepath.IsLocal(name) {
		return "", failf(sandbox.CodeInvalidPath, "the patch names %q, which is no path below the directory", shorten(name, 200))
	}
	return filepath.Join(p.dir, name), nil
}

func (p *patching) sections(text string) error {
	all, err := parsePatch(text)
	if err != nil {
		return err
	}
	r := &run{Env: Env{Directory: p.dir, Worktree: p.dir}}
	for _, s := range all {
		for _, name := range []string{s.path, s.moveTo} {
			if _, err := p.path(name); name != "" && err != nil {
				return err
			}
		}
		made, err := p.tree.carryOut(r, s)
		if err != nil {
			return err
		}
		done := sandbox.PatchedFile{Path: made.target(), Kind: made.kindName()}
		if made.moveTo != "" {
			done.From = made.path
		}
		p.done = append(p.done, done)
	}
	return nil
}

func (p *patching) unified(text string, strip int) error {
	all, err := parseUnified(text)
	if err != nil {
		return err
	}
	for i := range all {
		if err := p.tree.ctx.Err(); err != nil {
			return err
		}
		if err := p.file(&all[i], strip); err != nil {
			return err
		}
	}
	return nil
}

// stripped takes parts off the names of a file.
func (f *filePatch) stripped(strip int) error {
	if strip == 0 {
		strip = -1
		a, b := strings.HasPrefix(f.old, "a/"), strings.HasPrefix(f.new, "b/")
		if a && b || a && f.new == "" || b && f.old == "" {
			strip = 1
		}
	}
	for _, name := range []*string{&f.old, &f.new} {
		for n := 0; n < strip && *name != ""; n++ {
			_, rest, ok := strings.Cut(*name, "/")
			if rest = strings.TrimLeft(rest, "/"); !ok || rest == "" {
				return patchError(fmt.Sprintf("%d parts can't be taken off %q", strip, shorten(*name, 200)))
			}
			*name = rest
		}
	}
	return nil
}

func (p *patching) file(f *filePatch, strip int) error {
	if err := f.stripped(strip); err != nil {
		return err
	}
	if err := p.oneName(f); err != nil {
		return err
	}
	from := f.old
	if from == "" {
		from = f.new
	}
	path, err := p.path(from)
	if err != nil {
		return err
	}
	have, err := p.tree.open(path)
	if err != nil {
		return readError(path, err)
	}
	switch {
	case f.old == "" && have.now != nil:
		return patchError(path + " is there already")
	case f.old != "" && have.now == nil:
		return failf(sandbox.CodeFileNotFound, "the patch changes %s, which does not exist", path)
	}
	text, err := f.apply(path, string(have.now))
	if err != nil {
		return err
	}
	if len(text) > maxFile {
		return tooLarge(path, maxFile)
	}
	done, to := sandbox.PatchedFile{Path: path, Kind: string(updateFile)}, have
	switch {
	case f.new == "":
		if text != "" {
			return patchError(path + " would be deleted, but has lines that the patch does not name")
		}
		done.Kind, have.now = string(deleteFile), nil
		p.done = append(p.done, done)
		return nil
	case have.now == nil:
		done.Kind, have.mode = string(addFile), f.mode
	case f.new != f.old:
		target, err := p.path(f.new)
		if err != nil {
			return err
		}
		if to, err = p.tree.open(target); err != nil {
			return readError(target, err)
		}
		if to.now != nil {
			return patchError(target + " is there already")
		}
		if to.mode = have.mode; f.mode != 0 {
			to.mode = f.mode
		}
		have.now = nil
		done = sandbox.PatchedFile{Path: target, Kind: "move", From: path}
	case f.mode != 0 && f.mode != have.mode:
		p.modes = append(p.modes, modeChange{path, have.mode, f.mode})
	}
	to.now = []byte(text)
	p.done = append(p.done, done)
	return nil
}

// oneName settles which file is meant when two names are given and git does not
// say that one becomes the other, as with "f.orig" and "f": the one that exists.
func (p *patching) oneName(f *filePatch) error {
	if f.renamed || f.old == "" || f.new == "" || f.old == f.new {
		return nil
	}
	path, err := p.path(f.new)
	if err != nil {
		return err
	}
	if file, err := p.tree.open(path); err == nil && file.now != nil {
		f.old = f.new
	} else {
		f.new = f.old
	}
	return nil
}

// A modeChange is a file that stays and gets other permissions.
type modeChange struct {
	path     string
	old, new fs.FileMode
}

// chmod changes all modes, or none.
func chmod(all []modeChange) (undo func(), err error) {
	done := 0
	undo = func() {
		for _, m := range all[:done] {
			_ = files.Chmod(m.path, uint32(m.old.Perm()))
		}
	}
	for _, m := range all {
		if err := files.Chmod(m.path, uint32(m.new.Perm())); err != nil {
			undo()
			return nil, writeError("change the mode of", m.path, err)
		}
		done++
	}
	return undo, nil
}
