package tool

import (
	"context"
	"errors"
	"io/fs"
	"strings"

	"github.com/tongs-dev/tongs/sandbox"
)

// patched is what a patch makes of one file.
type patched struct {
	section
	path   string // absolute
	moveTo string // absolute; "" to stay
	old    string // text without byte order mark
	new    string
	bom    bool
	patch  string
	diff   lineDiff
}

// target is where the file is afterwards.
func (p patched) target() string {
	if p.moveTo != "" {
		return p.moveTo
	}
	return p.path
}

func (p patched) kindName() string {
	if p.moveTo != "" {
		return "move"
	}
	return string(p.kind)
}

// applyPatch adds, changes, moves and deletes files: all that a patch says, or
// nothing.
func applyPatch(ctx context.Context, r *run, a *args) (Result, error) {
	text := a.str("patchText", true)
	if a.err != nil {
		return Result{}, a.err
	}
	if text == "" {
		return Result{}, failf(sandbox.CodeInvalidArgument, "patchText is required")
	}
	if len(text) > maxPatchText {
		return Result{}, failf(sandbox.CodeInvalidArgument, "apply_patch verification failed: the patch is larger than 32 MiB. Send it in parts.")
	}
	sections, err := parsePatch(text)
	if err != nil {
		return Result{}, unverified("Error: %v", err)
	}
	if len(sections) == 0 {
		if trim(strings.ReplaceAll(toLF(text), "\r", "\n")) == "*** Begin Patch\n*** End Patch" {
			return Result{}, failf(sandbox.CodeInvalidArgument, "patch rejected: empty patch")
		}
		return Result{}, unverified("no hunks found")
	}
	paths, err := r.patchPaths(ctx, sections)
	if err != nil {
		return Result{}, err
	}
	unlock, err := lockPaths(ctx, paths...)
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	tree := &patchTree{ctx: ctx, files: map[string]*patchFile{}}
	var all []patched
	for _, s := range sections {
		p, err := tree.carryOut(r, s)
		if err != nil {
			return Result{}, err
		}
		all = append(all, p)
	}
	files, diff, touched := r.describe(all)
	err = r.ask(ctx, "edit", touched, []string{"*"}, map[string]any{
		"filepath": strings.Join(touched, ", "), "diff": diff, "files": files,
	})
	if err != nil {
		return Result{}, err
	}
	if err := commit(ctx, tree.changes()); err != nil {
		return Result{}, err
	}
	var said []string
	for _, p := range all {
		letter := map[sectionKind]string{addFile: "A ", deleteFile: "D ", updateFile: "M "}[p.kind]
		said = append(said, letter+r.relative(p.target()))
	}
	output := r.fit("Success. Updated the following files:\n" + strings.Join(said, "\n"))
	return Result{
		Title:    output,
		Output:   output,
		Metadata: map[string]any{"diff": diff, "files": files, "diagnostics": map[string]any{}},
	}, nil
}

func unverified(format string, args ...any) error {
	return failf(sandbox.CodeInvalidArgument, "apply_patch verification failed: "+format, args...)
}

// patchPaths checks the paths a patch names, asks for those outside the project
// and gives all of them, absolute.
func (r *run) patchPaths(ctx context.Context, sections []section) ([]string, error) {
	var paths []string
	for _, s := range sections {
		for _, name := range []string{s.path, s.moveTo} {
			if name == "" {
				continue
			}
			if strings.ContainsRune(name, 0) || len(name) >= maxPath {
				return nil, unverified("Error: a path contains a NUL byte or is longer than 4095 bytes: %s", shorten(strings.ReplaceAll(name, "\x00", "\\0"), 200))
			}
			path := r.resolve(name)
			if err := r.askExternal(ctx, path, false); err != nil {
				return nil, err
			}
			paths = append(paths, path)
		}
	}
	return paths, nil
}

// patchTree is the files of a patch while it is worked out in memory, so that a
// later section sees what an earlier one made of a file.
type patchTree struct {
	ctx   context.Context
	files map[string]*patchFile
	order []string
	total int
}

type patchFile struct {
	was  []byte // on disk; nil: not there
	now  []byte // nil: not there
	mode fs.FileMode
}

func (t *patchTree) open(path string) (*patchFile, error) {
	if f, ok := t.files[path]; ok {
		return f, nil
	}
	f := &patchFile{}
	data, err := readWhole(t.ctx, path, maxFile)
	switch {
	case err == nil:
		f.was, f.now = data, data
		if st, err := statMode(path); err == nil {
			f.mode = st.Perm()
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	if t.total += len(data); t.total > 4*maxFile {
		return nil, failf(sandbox.CodeFileTooLarge, "the files of this patch have more than %d MiB together. Send it in parts.", 4*maxFile>>20)
	}
	t.files[path] = f
	t.order = append(t.order, path)
	return f, nil
}

// carryOut works out one section.
func (t *patchTree) carryOut(r *run, s section) (patched, error) {
	p := patched{section: s, path: r.resolve(s.path)}
	if s.moveTo != "" {
		if to := r.resolve(s.moveTo); to != p.path {
			p.moveTo = to
		}
	}
	f, err := t.open(p.path)
	if err == nil {
		switch s.kind {
		case addFile:
			err = t.add(&p, f)
		case deleteFile:
			err = t.delete(&p, f)
		default:
			err = t.update(&p, f)
		}
	}
	if err != nil {
		var known *sandbox.Error
		switch {
		case errors.As(err, &known) && strings.HasPrefix(known.Message, "apply_patch"):
			return p, err
		case s.kind == updateFile && sandbox.CodeOf(err) == sandbox.CodeIsDirectory:
			return p, failf(sandbox.CodeIsDirectory, "apply_patch verification failed: Failed to read file to update: %s", p.path)
		case errors.As(readError(p.path, err), &known):
			return p, &sandbox.Error{Code: known.Code, Message: "apply_patch verification failed: " + known.Message, Err: err}
		}
	}
	p.patch, p.diff = patchText(p.path, p.old, p.new)
	return p, nil
}

func (t *patchTree) add(p *patched, f *patchFile) error {
	text := p.contents
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	p.new, p.bom = splitBOM(text)
	f.now = []byte(withBOM(p.new, p.bom))
	return nil
}

func (t *patchTree) delete(p *patched, f *patchFile) error {
	if f.now == nil {
		return failf(sandbox.CodeFileNotFound, "apply_patch verification failed: Failed to read file to delete: %s", p.path)
	}
	p.old, p.bom = splitBOM(string(f.now))
	f.now = nil
	return nil
}

func (t *patchTree) update(p *patched, f *patchFile) error {
	if f.now == nil {
		return failf(sandbox.CodeFileNotFound, "apply_patch verification failed: Failed to read file to update: %s", p.path)
	}
	p.old, p.bom = splitBOM(string(f.now))
	text, err := p.apply(p.path, p.old)
	if err != nil {
		return unverified("Error: %v", err)
	}
	text, added := splitBOM(text)
	p.new, p.bom = text, p.bom || added
	data := []byte(withBOM(text, p.bom))
	if len(data) > maxFile {
		return tooLarge(p.path, maxFile)
	}
	if p.moveTo == "" {
		f.now = data
		return nil
	}
	to, err := t.open(p.moveTo)
	if err != nil {
		return readError(p.moveTo, err)
	}
	to.now, to.mode = data, f.mode
	f.now = nil
	return nil
}

// changes gives what is to be done on disk.
func (t *patchTree) changes() []change {
	var all []change
	for _, path := range t.order {
		f := t.files[path]
		if f.was == nil && f.now == nil {
			continue
		}
		all = append(all, change{path: path, old: f.was, new: f.now, mode: f.mode})
	}
	return all
}

// describe gives the metadata of a patch: each file, all differences, and the
// paths that permission is asked for.
func (r *run) describe(all []patched) (files []map[string]any, diff string, touched []string) {
	var b strings.Builder
	for _, p := range all {
		if b.Len()+len(p.patch) <= maxPatch {
			b.WriteString(p.patch + "\n")
		}
		additions, deletions := p.diff.added(), p.diff.removed()
		if p.kind == deleteFile {
			// The built-in counts the pieces between newlines.
			additions, deletions = 0, strings.Count(p.old, "\n")+1
		}
		file := map[string]any{
			"filePath": p.path, "relativePath": r.relative(p.target()), "type": p.kindName(),
			"patch": p.patch, "additions": additions, "deletions": deletions,
		}
		if p.moveTo != "" {
			file["movePath"] = p.moveTo
		}
		files = append(files, file)
		touched = append(touched, r.relative(p.path))
	}
	return files, b.String(), touched
}
