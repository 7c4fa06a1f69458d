package tool

import (
	"context"
	"errors"
	"io/fs"
	"strings"

	"github.com/tongs-dev/tongs/internal/files"
	"github.com/tongs-dev/tongs/sandbox"
)

// edit replaces one piece of text in a file by another.
func edit(ctx context.Context, r *run, a *args) (Result, error) {
	file := a.path("filePath", true)
	old := a.str("oldString", true)
	new := a.str("newString", true)
	all := a.boolean("replaceAll")
	if a.err != nil {
		return Result{}, a.err
	}
	if old == new {
		return Result{}, failf(sandbox.CodeInvalidArgument, "No changes to apply: oldString and newString are identical.")
	}
	path := r.resolve(file)
	if err := r.askExternal(ctx, path, false); err != nil {
		return Result{}, err
	}
	unlock, err := lockPaths(ctx, path)
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	var before, after string
	var c change
	if old == "" {
		c, after, err = editNew(path, new)
	} else {
		c, before, after, err = editExisting(ctx, path, old, new, all)
	}
	if err != nil {
		return Result{}, err
	}
	patch, _ := patchText(path, toLF(before), toLF(after))
	counts := diffLines(before, after)
	err = r.ask(ctx, "edit", []string{r.relative(path)}, []string{"*"}, map[string]any{"filepath": path, "diff": patch})
	if err != nil {
		return Result{}, err
	}
	if err := commit(ctx, []change{c}); err != nil {
		return Result{}, err
	}
	return Result{
		Title:  r.relative(path),
		Output: "Edit applied successfully.",
		Metadata: map[string]any{
			"diagnostics": map[string]any{},
			"diff":        patch,
			"filediff": map[string]any{
				"file": path, "patch": patch,
				"additions": counts.added(), "deletions": counts.removed(),
			},
		},
	}, nil
}

// editNew makes a file of new; it must not be there.
func editNew(path, new string) (c change, after string, err error) {
	if _, err := files.Lstat(path); errors.Is(err, files.ErrMagicLink) {
		return c, "", writeError("write", path, err)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return c, "", failf(sandbox.CodeFileExists, "oldString cannot be empty when editing an existing file. Provide the exact text to replace, or use write for an intentional full-file replacement.")
	}
	text, bom := splitBOM(new)
	return change{path: path, new: []byte(withBOM(text, bom))}, text, nil
}

func editExisting(ctx context.Context, path, old, new string, all bool) (c change, before, after string, err error) {
	data, err := readWhole(ctx, path, maxFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return c, "", "", failf(sandbox.CodeFileNotFound, "File %s not found", path)
	case err != nil:
		return c, "", "", readError(path, err)
	}
	before, bom := splitBOM(string(data))
	// What the model sends has the line endings of its own choice.
	old, new = toLF(old), toLF(new)
	if strings.Contains(before, "\r\n") {
		old, new = toCRLF(old), toCRLF(new)
	}
	after, err = newMatcher(ctx, before, old).replace(new, all)
	if err != nil {
		return c, "", "", err
	}
	if len(after) > maxFile {
		return c, "", "", tooLarge(path, maxFile)
	}
	after, added := splitBOM(after)
	return change{path: path, old: data, new: []byte(withBOM(after, bom || added))}, before, after, nil
}

func toLF(s string) string   { return strings.ReplaceAll(s, "\r\n", "\n") }
func toCRLF(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }
