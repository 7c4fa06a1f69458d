package surface

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
)

const (
	// sniffed is how much of a file tells whether it is text.
	sniffed = 4 << 10
	// fileChunk is how much of a file one event has: a multiple of 3, so that its base64 has no padding
	// but in the last.
	fileChunk = 48 << 10
)

// sniff opens a file and says what it is.
func (b *box) sniff(ctx context.Context, name string) (r io.ReadCloser, in *sandbox.FileInfo, binary bool, mime string, err error) {
	head, in, err := b.ReadFile(ctx, name, sandbox.ReadOptions{Length: sniffed})
	if err != nil {
		return nil, nil, false, "", err
	}
	binary, mime = sandbox.DetectContent(name, head, len(head) < sniffed)
	// The reader lives as long as the stream, not as long as the call.
	r, err = b.OpenFile(context.WithoutCancel(ctx), name, sandbox.ReadOptions{})
	return r, in, binary, mime, err
}

// openFile is readFile with a stream as its content.
func (b *box) openFile(ctx context.Context, name, at string) (*readFileResult, error) {
	r, in, binary, mime, err := b.sniff(ctx, at)
	if err != nil {
		return nil, err
	}
	return &readFileResult{Success: true, Path: name, Content: capnweb.NewReader(r), IsBinary: binary, MimeType: mime, Size: in.Size, Timestamp: timestamp(time.Now())}, nil
}

// readFileStream gives a stream of events: metadata, chunk, and complete or error in the end. A file whose
// beginning is text is sent as text; where it turns out to be none, the stream ends with an
// error instead of changed bytes.
func (b *box) readFileStream(ctx context.Context, name string, o *fileOptions) (*capnweb.ReadableStream, error) {
	const op = "read file"
	enc, err := o.encoding(op)
	if err != nil {
		return nil, err
	}
	at, err := b.path(ctx, name)
	if err != nil {
		return nil, err
	}
	r, in, binary, mime, err := b.sniff(ctx, at)
	if err != nil {
		return nil, err
	}
	if enc == "" || enc == "none" {
		if enc = "utf-8"; binary {
			enc = "base64"
		}
	}
	var (
		text  textDecoder
		read  int64
		over  bool
		begun bool
		buf   = make([]byte, fileChunk)
	)
	next := func(context.Context) (event, error) {
		if !begun {
			begun = true
			return event{"type": "metadata", "mimeType": mime, "size": in.Size, "isBinary": binary, "encoding": enc}, nil
		}
		if over {
			return nil, io.EOF
		}
		for {
			n, err := io.ReadFull(r, buf)
			read += int64(n)
			end := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) && sandbox.CodeOf(err) == ""
			if err != nil && !end {
				return nil, err
			}
			if n == 0 && end {
				over = true
				if enc == "utf-8" && text.end() != "" {
					return nil, notText(name)
				}
				return event{"type": "complete", "bytesRead": read}, nil
			}
			if enc == "base64" {
				return event{"type": "chunk", "data": base64.StdEncoding.EncodeToString(buf[:n])}, nil
			}
			data, ok := text.exact(buf[:n])
			if !ok {
				return nil, notText(name)
			}
			if data != "" {
				return event{"type": "chunk", "data": data}, nil
			}
		}
	}
	return eventStream("file.read", next, func() { _ = r.Close() }), nil
}

func notText(name string) error {
	return sandbox.Errf(sandbox.CodeInvalidArgument, "read file", clipped(name)+" begins as text but is not UTF-8 throughout", "read it with {encoding: \"base64\"}")
}
