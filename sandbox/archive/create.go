package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/tongs-dev/tongs/sandbox"
)

// CreateOptions say what goes into an archive.
type CreateOptions struct {
	Format Format
	sandbox.TreeOptions
	// MaxBytes bounds the content of all files, 0 is no bound; MaxEntries the
	// entries, default DefaultMaxEntries. More ends the archive with
	// sandbox.CodeArchiveTooLarge.
	MaxBytes   int64
	MaxEntries int64
}

// DefaultMaxEntries is how many entries an archive may have.
const DefaultMaxEntries = 1_000_000

// Create reads what is below a directory of the sandbox, or one file, as an
// archive, sorted by path. Memory does not grow with the tree. The errors of Read
// are those of the sandbox; ctx covers the whole reading. Close gives up.
func Create(ctx context.Context, box sandbox.Trees, path string, opts CreateOptions) (io.ReadCloser, error) {
	const op = "create archive"
	if opts.MaxEntries <= 0 {
		opts.MaxEntries = DefaultMaxEntries
	}
	pr, pw := io.Pipe()
	z, err := compressor(pw, opts.Format)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	tree, err := box.ReadTree(ctx, path, opts.TreeOptions)
	if err != nil {
		cancel()
		return nil, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer tree.Close()
		err := write(z, tree, opts)
		if err == nil {
			err = z.Close()
		} else {
			_ = z.Close() // releases it; what it writes is not the end of an archive
		}
		var e *sandbox.Error
		if errors.As(err, &e) && e.Op == "" {
			e.Op = op
		}
		pw.CloseWithError(err)
	}()
	return &created{PipeReader: pr, cancel: cancel, done: done}, nil
}

type created struct {
	*io.PipeReader
	cancel context.CancelFunc
	done   chan struct{}
}

func (c *created) Close() error {
	err := c.PipeReader.Close()
	c.cancel()
	<-c.done
	return err
}

func write(z io.Writer, tree sandbox.TreeReader, opts CreateOptions) error {
	w := tar.NewWriter(z)
	buf := make([]byte, 128<<10)
	var bytes, entries int64
	for {
		e, err := tree.Next()
		if errors.Is(err, io.EOF) {
			return w.Close()
		}
		if err != nil {
			return err
		}
		entries++
		if bytes += e.Size; entries > opts.MaxEntries || opts.MaxBytes > 0 && bytes > opts.MaxBytes {
			return tooLarge(entries, bytes)
		}
		h := &tar.Header{Name: e.Name, Mode: int64(e.Mode), ModTime: e.Modified, Format: tar.FormatPAX}
		switch e.Type {
		case sandbox.TreeDirectory:
			h.Typeflag, h.Name = tar.TypeDir, e.Name+"/"
		case sandbox.TreeSymlink:
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.Target
		default:
			h.Typeflag, h.Size = tar.TypeReg, e.Size
		}
		if err := w.WriteHeader(h); err != nil {
			return sandbox.Errf(sandbox.CodeInvalidArgument, "create archive", fmt.Sprintf("%q can't be in an archive: %v", e.Name, err), "leave it out")
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{tree}, buf); err != nil {
				return err
			}
		}
	}
}

func tooLarge(entries, bytes int64) error {
	return sandbox.Errf(sandbox.CodeArchiveTooLarge, "", fmt.Sprintf("the archive has at least %d entries and %d bytes, more than its bounds", entries, bytes), "raise MaxEntries or MaxBytes, or exclude something")
}
