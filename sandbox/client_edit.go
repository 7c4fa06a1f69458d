package sandbox

import (
	"context"
	"fmt"
)

// maxEditText bounds what goes into one message.
const maxEditText = 16 << 20

func fitsMessage(op string, n int) error {
	if n <= maxEditText {
		return nil
	}
	return Errf(CodeFileTooLarge, op, fmt.Sprintf("the text has %d bytes, more than the %d MiB of one call", n, maxEditText>>20), "do it in parts, or write the whole file")
}

func (c *Client) ReadLines(ctx context.Context, path string, opts LineOptions) (*Lines, error) {
	return call[*Lines](ctx, c, "read lines", "readLines", path, opts)
}

func (c *Client) Exists(ctx context.Context, path string) (bool, error) {
	_, err := c.Stat(ctx, path)
	switch CodeOf(err) {
	case CodeFileNotFound, CodeNotDirectory:
		return false, nil
	}
	return err == nil, err
}

func (c *Client) Copy(ctx context.Context, from, to string, opts CopyOptions) (*CopyResult, error) {
	return call[*CopyResult](ctx, c, "copy", "copy", from, to, opts)
}

func (c *Client) Edit(ctx context.Context, path, old, new string, opts EditOptions) (*EditResult, error) {
	if err := fitsMessage("edit", len(old)+len(new)); err != nil {
		return nil, err
	}
	// As bytes: a file need not be UTF-8.
	return call[*EditResult](ctx, c, "edit", "edit", path, []byte(old), []byte(new), opts)
}

func (c *Client) ApplyPatch(ctx context.Context, patch string, opts PatchOptions) (*PatchResult, error) {
	if err := fitsMessage("apply patch", len(patch)); err != nil {
		return nil, err
	}
	return call[*PatchResult](ctx, c, "apply patch", "applyPatch", []byte(patch), opts)
}
