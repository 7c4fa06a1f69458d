package sandbox

import "context"

var _ Search = (*Client)(nil)

func (c *Client) Glob(ctx context.Context, opts GlobOptions) (*GlobResult, error) {
	return call[*GlobResult](ctx, c, "glob", "glob", opts)
}

func (c *Client) Grep(ctx context.Context, pattern string, opts GrepOptions) (*GrepResult, error) {
	if err := fitsMessage("grep", len(pattern)); err != nil {
		return nil, err
	}
	return call[*GrepResult](ctx, c, "grep", "grep", pattern, opts)
}

func (c *Client) Find(ctx context.Context, query string, opts FindOptions) (*FindResult, error) {
	if err := fitsMessage("find", len(query)); err != nil {
		return nil, err
	}
	return call[*FindResult](ctx, c, "find", "find", query, opts)
}
