package archive

import (
	"archive/tar"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/tongs-dev/tongs/sandbox"
)

// ExtractOptions say how to extract.
type ExtractOptions struct {
	Format Format
	sandbox.WriteTreeOptions
	// Strip takes that many leading parts off each name; entries with no more
	// parts are passed over.
	Strip int
	// MaxBytes bounds the content of all files together, as it is on disk: holes
	// of sparse files and what compression saved count. Default DefaultMaxBytes,
	// -1 is no bound. MaxEntries bounds the entries, default DefaultMaxEntries.
	MaxBytes   int64
	MaxEntries int64
}

// DefaultMaxBytes bounds what an archive may become: 64 GiB.
const DefaultMaxBytes = 64 << 30

// maxPadding bounds what may come behind the last entry.
const maxPadding = 16 << 20

var errTrailing = errors.New("more comes behind its end than padding")

// Result counts what was extracted.
type Result = sandbox.TreeResult

// Extract writes an archive's files below a directory of the sandbox, which is made
// if it is not there. It stops at the first thing that is wrong: what came before
// stays. Errors are the sandbox's, sandbox.CodeUnsafeArchive,
// sandbox.CodeArchiveTooLarge, sandbox.CodeInvalidArchive, and those of r.
func Extract(ctx context.Context, box sandbox.Trees, dir string, r io.Reader, opts ExtractOptions) (*Result, error) {
	const op = "extract archive"
	if opts.MaxBytes == 0 {
		opts.MaxBytes = DefaultMaxBytes
	}
	if opts.MaxEntries <= 0 {
		opts.MaxEntries = DefaultMaxEntries
	}
	if opts.Strip < 0 {
		return nil, sandbox.Errf(sandbox.CodeInvalidArgument, op, "strip is negative", "")
	}
	src := &source{r: r}
	plain, release, err := decompressor(src, opts.Format)
	if err != nil {
		return nil, src.failure(op, err)
	}
	defer release()
	w, err := box.WriteTree(ctx, dir, opts.WriteTreeOptions)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	x := &extraction{w: w, opts: opts, tar: tar.NewReader(plain)}
	if err := x.run(); err != nil {
		return nil, src.failure(op, err)
	}
	// Behind the last entry come zeros, and the sums of what was compressed.
	if n, err := io.CopyN(io.Discard, plain, maxPadding); n == maxPadding || err != nil && !errors.Is(err, io.EOF) {
		return nil, src.failure(op, cmp.Or(err, errTrailing))
	}
	return w.Finish()
}

// source remembers what went wrong in reading the archive itself.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

func (s *source) failure(op string, err error) error {
	var e *sandbox.Error
	switch {
	case s.err != nil:
		return s.err
	case errors.Is(err, io.ErrUnexpectedEOF):
	case errors.As(err, &e):
		c := *e
		c.Op = op
		return &c
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return &sandbox.Error{Code: sandbox.CodeInvalidArchive, Op: op, Message: "the archive can't be read: " + err.Error(), Hint: "is it whole, and a tar file?", Err: err}
}

type extraction struct {
	w              sandbox.TreeWriter
	opts           ExtractOptions
	tar            *tar.Reader
	bytes, entries int64
}

func (x *extraction) run() error {
	for {
		h, err := x.tar.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) { // names are looked at below
			return err
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		x.entries++
		if x.bytes += max(h.Size, 0); x.entries > x.opts.MaxEntries || x.opts.MaxBytes >= 0 && x.bytes > x.opts.MaxBytes {
			return tooLarge(x.entries, x.bytes)
		}
		e, err := x.entry(h)
		if err != nil {
			return err
		}
		if e == nil {
			continue
		}
		if err := x.w.Add(e, x.tar); err != nil {
			return err
		}
	}
}

// entry says what a header means; nil is nothing.
func (x *extraction) entry(h *tar.Header) (*sandbox.TreeEntry, error) {
	name, err := x.name(h.Name)
	if err != nil || name == "" {
		return nil, err
	}
	e := &sandbox.TreeEntry{Name: name, Mode: uint32(h.Mode & 0o1777), Modified: h.ModTime}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont, '\x00':
		if e.Type, e.Size = sandbox.TreeFile, h.Size; strings.HasSuffix(h.Name, "/") {
			e.Type, e.Size = sandbox.TreeDirectory, 0 // as before POSIX
		}
	case tar.TypeDir:
		e.Type = sandbox.TreeDirectory
	case tar.TypeSymlink:
		e.Type, e.Target, e.Mode = sandbox.TreeSymlink, h.Linkname, 0
	case tar.TypeLink:
		e.Type, e.Mode = sandbox.TreeHardlink, 0
		if e.Target, err = x.name(h.Linkname); err == nil && e.Target == "" {
			err = sandbox.Errf(sandbox.CodeInvalidArchive, "", fmt.Sprintf("the hard link %.200q has no target", h.Name), "")
		}
		if err != nil {
			return nil, err
		}
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return nil, sandbox.Errf(sandbox.CodeUnsafeArchive, "", fmt.Sprintf("%.200q is a device or a FIFO", h.Name), "make the archive without it")
	default:
		return nil, sandbox.Errf(sandbox.CodeInvalidArchive, "", fmt.Sprintf("%.200q is of the unknown type %q", h.Name, h.Typeflag), "")
	}
	return e, nil
}

// name makes the name of an entry one below the directory. "./a//b/" is a/b; but
// what leads up, or begins at the root, is refused and not repaired.
func (x *extraction) name(name string) (string, error) {
	if strings.HasPrefix(name, "/") {
		return "", sandbox.CheckTreeName(name)
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", sandbox.CheckTreeName("..")
		}
	}
	clean := path.Clean(name)
	for range x.opts.Strip {
		_, rest, ok := strings.Cut(clean, "/")
		if !ok {
			return "", nil
		}
		clean = rest
	}
	if clean == "." {
		return "", nil
	}
	return clean, sandbox.CheckTreeName(clean)
}
