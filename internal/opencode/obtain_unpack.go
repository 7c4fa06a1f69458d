package opencode

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"time"
)

// maxBinary bounds a binary whose size is not pinned.
const maxBinary = 1 << 30

// maxEntries bounds the entries of a tarball that are looked at.
const maxEntries = 1000

// unpack takes the one file we want out of a tarball whose digest was checked,
// and puts it at target.
func unpack(ctx context.Context, o *ObtainOptions, tarball, target string) error {
	const op, member = "unpack OpenCode", "package/bin/opencode"
	invalid := func(message string, err error) error {
		return &ObtainError{Code: CodeArchiveInvalid, Op: op, Message: message, Err: err,
			Hint: "remove " + filepath.Dir(target) + " and start again, or name an own binary with --opencode-binary"}
	}
	f, err := os.Open(tarball)
	if err != nil {
		return fileError(op, filepath.Dir(tarball), err)
	}
	defer f.Close()
	zr, err := gzip.NewReader(f)
	if err != nil {
		return invalid("the tarball is not gzip", err)
	}
	tr := tar.NewReader(zr)
	for n := 0; n < maxEntries; n++ {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return invalid("the tarball is damaged", err)
		}
		if path.Clean(h.Name) != member {
			continue
		}
		if h.Typeflag != tar.TypeReg {
			return invalid(member+" is not a regular file", nil)
		}
		want := o.Package.BinarySize
		if want > 0 && h.Size != want || h.Size > maxBinary {
			return invalid(fmt.Sprintf("%s has %d bytes", member, h.Size), nil)
		}
		var damaged error // reading failed, not writing
		err = replaceFile(target, 0o755, func(w io.Writer) error {
			buf := make([]byte, 256<<10)
			var done int64
			var told time.Time
			for {
				if err := ctx.Err(); err != nil {
					return err
				}
				n, err := tr.Read(buf)
				if _, werr := w.Write(buf[:n]); werr != nil {
					return werr
				}
				done += int64(n)
				if now := time.Now(); now.Sub(told) >= 100*time.Millisecond || err == io.EOF {
					told = now
					o.report(Progress{Phase: PhaseUnpack, Done: done, Total: h.Size})
				}
				if err == io.EOF {
					return nil
				}
				if err != nil {
					damaged = err
					return err
				}
			}
		})
		if damaged != nil {
			return invalid("the tarball is damaged", damaged)
		}
		if err != nil {
			return fileError(op, filepath.Dir(target), err)
		}
		return nil
	}
	return invalid("the tarball has no "+member, nil)
}
