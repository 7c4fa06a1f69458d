package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"github.com/tongs-dev/tongs/sandbox"
)

// Bounds of an archive of an image.
const (
	maxArchiveFiles = 10_000
	maxArchiveBytes = 256 << 30
)

func newTar(r io.Reader) *tar.Reader { return tar.NewReader(r) }

// archiveFiles are files in a tar archive, found where they are.
type archiveFiles struct {
	f     *os.File
	end   func()
	files map[string]archived
}

// archived is a file at a place of an archive, or a link to another.
type archived struct {
	at, size int64
	link     string
}

// openArchive lists what is in an archive. One that is compressed is decompressed first, beside the blobs.
func (s *Store) openArchive(ctx context.Context, f *os.File) (*archiveFiles, error) {
	a := &archiveFiles{f: f, end: func() {}, files: make(map[string]archived)}
	r, end, err := plainArchive(f)
	if err != nil {
		return nil, err
	}
	defer end()
	if _, plain := r.(interface{ Buffered() int }); plain {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return nil, sandbox.FileError(importOp, err)
		}
	} else if err := a.decompress(ctx, s.path(blobsDir), r); err != nil {
		return nil, err
	}
	if err := a.list(ctx); err != nil {
		a.close()
		return nil, err
	}
	return a, nil
}

func (a *archiveFiles) close() { a.end() }

// decompress puts the archive without its compression into a file that has no name any more.
func (a *archiveFiles) decompress(ctx context.Context, dir string, r io.Reader) error {
	tmp, err := os.CreateTemp(dir, "import-")
	if err != nil {
		return sandbox.FileError(importOp, err)
	}
	err = os.Remove(tmp.Name())
	var n int64
	for err == nil && n <= maxArchiveBytes {
		if err = ctx.Err(); err != nil {
			break
		}
		var more int64
		if more, err = io.CopyN(tmp, r, 4<<20); err == io.EOF {
			err = nil
			if more == 0 {
				break
			}
		}
		n += more
	}
	if err == nil && n > maxArchiveBytes {
		err = sandbox.Errf(sandbox.CodeArchiveTooLarge, importOp, fmt.Sprintf("%s becomes more than %d GiB", a.f.Name(), int64(maxArchiveBytes)>>30), "use a smaller image")
	}
	if err == nil {
		_, err = tmp.Seek(0, io.SeekStart)
	}
	if err != nil {
		tmp.Close()
		return sandbox.FileError(importOp, err)
	}
	a.f, a.end = tmp, func() { tmp.Close() }
	return nil
}

func (a *archiveFiles) list(ctx context.Context) error {
	t := newTar(a.f) // it seeks over what isn't read
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err == nil && len(a.files) >= maxArchiveFiles {
			err = fmt.Errorf("more than %d files", maxArchiveFiles)
		}
		var at int64
		if err == nil {
			at, err = a.f.Seek(0, io.SeekCurrent)
		}
		if err != nil {
			return &sandbox.Error{Code: sandbox.CodeInvalidArchive, Op: importOp, Message: "the archive is damaged: " + err.Error(), Hint: "save the image again", Err: err}
		}
		name := path.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			a.files[name] = archived{at: at, size: h.Size}
		case tar.TypeSymlink:
			a.files[name] = archived{link: path.Join(path.Dir(name), h.Linkname)}
		case tar.TypeLink:
			a.files[name] = archived{link: path.Clean(h.Linkname)}
		}
	}
}

func (a *archiveFiles) open(name string) (io.ReadCloser, int64, error) {
	at := path.Clean(name)
	for range 8 {
		f, ok := a.files[at]
		if !ok {
			break
		}
		if f.link == "" {
			return io.NopCloser(io.NewSectionReader(a.f, f.at, f.size)), f.size, nil
		}
		at = f.link
	}
	return nil, 0, &fs.PathError{Op: "open", Path: name, Err: errors.Join(fs.ErrNotExist)}
}
