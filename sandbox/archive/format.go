package archive

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/tongs-dev/tongs/sandbox"
)

// Format is how an archive is written.
type Format string

const (
	Auto    Format = "" // Create: Tar; Extract: told by the first bytes
	Tar     Format = "tar"
	TarGzip Format = "tar.gz"
	TarZstd Format = "tar.zst"
)

// maxWindow bounds the memory that a zstd archive may ask for (RFC 8878, 3.1.1.1.2
// recommends to support 8 MiB; zstd --long=26 needs 64 MiB).
const maxWindow = 64 << 20

func compressor(w io.Writer, f Format) (io.WriteCloser, error) {
	switch f {
	case Auto, Tar:
		return nopCloser{w}, nil
	case TarGzip:
		return gzip.NewWriter(w), nil
	case TarZstd:
		return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
	}
	return nil, unknown("create archive", f)
}

func unknown(op string, f Format) error {
	return sandbox.Errf(sandbox.CodeInvalidArgument, op, fmt.Sprintf("there is no format %.40q", string(f)), "use tar, tar.gz or tar.zst")
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// decompressor gives what is in a compressed archive.
func decompressor(r io.Reader, f Format) (io.Reader, func(), error) {
	b := bufio.NewReaderSize(r, 128<<10)
	if f == Auto {
		head, err := b.Peek(4)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, nil, err
		}
		switch f = Tar; {
		case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
			f = TarGzip
		case bytes.Equal(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
			f = TarZstd
		}
	}
	switch f {
	case Tar:
		return b, func() {}, nil
	case TarGzip:
		z, err := gzip.NewReader(b)
		return z, func() {}, err
	case TarZstd:
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	}
	return nil, nil, unknown("extract archive", f)
}
