package tool

import (
	"context"
	"errors"
	"io/fs"

	"github.com/tongs-dev/tongs/sandbox"
)

// write replaces a whole file, or makes it.
func write(ctx context.Context, r *run, a *args) (Result, error) {
	content := a.str("content", true)
	file := a.path("filePath", true)
	if a.err != nil {
		return Result{}, a.err
	}
	path := r.resolve(file)
	if len(content) > maxFile {
		return Result{}, failf(sandbox.CodeFileTooLarge, "content is larger than 32 MiB. Write %s in parts with bash.", path)
	}
	if err := r.askExternal(ctx, path, false); err != nil {
		return Result{}, err
	}
	unlock, err := lockPaths(ctx, path)
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	old, err := readWhole(ctx, path, maxFile)
	exists := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Result{}, readError(path, err)
	}
	before, hadBOM := splitBOM(string(old))
	after, hasBOM := splitBOM(content)
	patch, _ := patchText(path, before, after)
	err = r.ask(ctx, "edit", []string{r.relative(path)}, []string{"*"}, map[string]any{"filepath": path, "diff": patch})
	if err != nil {
		return Result{}, err
	}
	c := change{path: path, old: old, new: []byte(withBOM(after, hadBOM || hasBOM))}
	if err := commit(ctx, []change{c}); err != nil {
		return Result{}, err
	}
	return Result{
		Title:    r.relative(path),
		Output:   "Wrote file successfully.",
		Metadata: map[string]any{"diagnostics": map[string]any{}, "filepath": path, "exists": exists},
	}, nil
}
