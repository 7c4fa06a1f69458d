package surface

import (
	"context"
	"io"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
	"github.com/tongs-dev/tongs/sandbox/archive"
)

// search is the contract's sandbox.Search.
type search struct{ part }

var searchMethods = capnweb.Methods{
	"glob": guarded("file.search", "", search.glob),
	"grep": guarded("file.search", "pattern", search.grep),
	"find": guarded("file.search", "query", search.find),
}

var searchClass = capnweb.NewClass[search](searchMethods, capnweb.Concurrent())

// scope is sandbox.Scope, with the timeout in milliseconds.
type scope struct {
	Path     string   `json:"path"`
	Include  []string `json:"include"`
	Exclude  []string `json:"exclude"`
	Hidden   bool     `json:"hidden"`
	NoIgnore bool     `json:"noIgnore"`
	Timeout  float64  `json:"timeout"`
	Limit    int      `json:"limit"`
	// For grep.
	Fixed      bool `json:"fixed"`
	IgnoreCase bool `json:"ignoreCase"`
	Context    int  `json:"context"`
}

func (s *scope) scope() (sandbox.Scope, error) {
	timeout, err := duration("search", "timeout", s.Timeout)
	return sandbox.Scope{Path: s.Path, Include: s.Include, Exclude: s.Exclude, Hidden: s.Hidden, NoIgnore: s.NoIgnore, Timeout: timeout}, err
}

func (s search) glob(ctx context.Context, o *scope) (*sandbox.GlobResult, error) {
	if o == nil {
		o = &scope{}
	}
	in, err := o.scope()
	if err != nil {
		return nil, err
	}
	return s.b.Glob(ctx, sandbox.GlobOptions{Scope: in, Limit: o.Limit})
}

func (s search) grep(ctx context.Context, pattern string, o *scope) (*sandbox.GrepResult, error) {
	if o == nil {
		o = &scope{}
	}
	in, err := o.scope()
	if err != nil {
		return nil, err
	}
	return s.b.Grep(ctx, pattern, sandbox.GrepOptions{Scope: in, Fixed: o.Fixed, IgnoreCase: o.IgnoreCase, Context: o.Context, Limit: o.Limit})
}

func (s search) find(ctx context.Context, query string, o *scope) (*sandbox.FindResult, error) {
	if o == nil {
		o = &scope{}
	}
	in, err := o.scope()
	if err != nil {
		return nil, err
	}
	return s.b.Find(ctx, query, sandbox.FindOptions{Scope: in, Limit: o.Limit})
}

var fileTreeMethods = capnweb.Methods{
	"watch":   guarded("file.watch", "path", files.watch),
	"archive": guarded("file.archive", "path", files.archive),
	"extract": guarded("file.extract", "path", files.extract),
}

type archiveOptions struct {
	Format   archive.Format `json:"format"` // tar (the default), tar.gz, tar.zst; for extract it is told by the bytes
	Strip    int            `json:"strip"`
	MaxBytes float64        `json:"maxBytes"`
}

// archive gives what is below a directory as a stream of a tar archive.
func (f files) archive(ctx context.Context, path string, o *archiveOptions) (*capnweb.ReadableStream, error) {
	if o == nil {
		o = &archiveOptions{}
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r, err := archive.Create(life, f.b.Client, path, archive.CreateOptions{Format: o.Format, MaxBytes: int64(o.MaxBytes)})
	if err != nil {
		cancel()
		return nil, err
	}
	return capnweb.NewReader(&closer{r, cancel}), nil
}

// closer ends what its reader needs.
type closer struct {
	io.ReadCloser
	cancel func()
}

func (c *closer) Close() error {
	defer c.cancel()
	return c.ReadCloser.Close()
}

// extract writes what a stream of an archive holds below a directory. Nothing in it can reach out of there.
func (f files) extract(ctx context.Context, path string, stream *capnweb.ReadableStream, o *archiveOptions) (*archive.Result, error) {
	if o == nil {
		o = &archiveOptions{}
	}
	if stream == nil {
		return nil, invalid("extract", "there is no stream of an archive", "extract(path, stream)")
	}
	return archive.Extract(ctx, f.b.Client, path, streamReader{ctx, stream}, archive.ExtractOptions{Format: o.Format, Strip: o.Strip, MaxBytes: int64(o.MaxBytes)})
}
