package surface

import (
	"context"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
)

var fileEditMethods = capnweb.Methods{
	"readLines":  guarded("file.read", "path", files.readLines),
	"edit":       guarded("file.write", "path", files.edit),
	"applyPatch": guarded("file.write", "", files.applyPatch),
	"copy":       guarded("file.copy", "path", files.copy),
}

func (f files) readLines(ctx context.Context, path string, o *sandbox.LineOptions) (*sandbox.Lines, error) {
	if o == nil {
		o = &sandbox.LineOptions{}
	}
	return f.b.ReadLines(ctx, path, *o)
}

func (f files) edit(ctx context.Context, path, old, text string, o *sandbox.EditOptions) (*sandbox.EditResult, error) {
	if o == nil {
		o = &sandbox.EditOptions{}
	}
	return f.b.Edit(ctx, path, old, text, *o)
}

func (f files) applyPatch(ctx context.Context, patch string, o *sandbox.PatchOptions) (*sandbox.PatchResult, error) {
	if o == nil {
		o = &sandbox.PatchOptions{}
	}
	return f.b.ApplyPatch(ctx, patch, *o)
}

func (f files) copy(ctx context.Context, from, to string, o *sandbox.CopyOptions) (*sandbox.CopyResult, error) {
	if o == nil {
		o = &sandbox.CopyOptions{}
	}
	return f.b.Copy(ctx, from, to, *o)
}
