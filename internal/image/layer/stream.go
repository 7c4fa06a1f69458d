//go:build linux

package layer

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const (
	chunkBytes = 256 << 10
	chunks     = 8
	// maxWindow bounds the memory of zstd's decoder.
	maxWindow = 128 << 20
)

// stream is an archive without its compression. It is decompressed and summed ahead of its reader, by a
// goroutine of its own.
type stream struct {
	ctx    context.Context
	cancel context.CancelFunc
	full   chan []byte
	free   chan []byte
	now    []byte // what is being read,
	whole  []byte // and the buffer that it is in
	ended  sync.WaitGroup

	mu  sync.Mutex
	err error // why the goroutine has ended: io.EOF when all is well
	sum hash.Hash
}

// decompress begins with reading r.
func decompress(ctx context.Context, r io.Reader, limits Limits) *stream {
	ctx, cancel := context.WithCancel(ctx)
	s := &stream{ctx: ctx, cancel: cancel, full: make(chan []byte, chunks), free: make(chan []byte, chunks), sum: sha256.New()}
	for range chunks {
		s.free <- make([]byte, chunkBytes)
	}
	s.ended.Go(func() {
		err := s.pump(r, limits)
		s.mu.Lock()
		s.err = err
		s.mu.Unlock()
		close(s.full)
	})
	return s
}

// close ends the goroutine, as soon as its source answers.
func (s *stream) close() {
	s.cancel()
	s.ended.Wait()
}

// failure gives why the archive could not be read to its end, if it couldn't.
func (s *stream) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == io.EOF || errors.Is(s.err, context.Canceled) {
		return nil
	}
	return s.err
}

// digest gives the digest of an archive that was read to its end.
func (s *stream) digest() (string, error) {
	s.ended.Wait()
	if err := s.failure(); err != nil {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(s.sum.Sum(nil)), nil
}

type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

func (s *stream) pump(r io.Reader, limits Limits) error {
	read := &counter{r: r}
	plain, end, err := plainReader(read)
	if err != nil {
		return err
	}
	defer end()
	total := int64(0)
	for {
		var buf []byte
		select {
		case buf = <-s.free:
		case <-s.ctx.Done():
			return context.Cause(s.ctx)
		}
		n, err := io.ReadFull(plain, buf)
		if total += int64(n); total > limits.RatioBytes && total/limits.Ratio > read.n {
			return tooLarge("%d KiB of it become more than %d MiB: more than %d times as much", read.n>>10, total>>20, limits.Ratio)
		}
		if most := limits.Bytes + 1024*limits.Entries; total > most {
			return tooLarge("it has more than %d MiB", most>>20)
		}
		s.sum.Write(buf[:n])
		if n > 0 {
			select {
			case s.full <- buf[:n]:
			case <-s.ctx.Done():
				return context.Cause(s.ctx)
			}
		}
		switch {
		case err == io.EOF || err == io.ErrUnexpectedEOF && s.atEnd(plain):
			return io.EOF
		case err != nil:
			return damaged(err)
		}
	}
}

// atEnd tells the end of an archive, which ReadFull calls unexpected too, from one that was cut short.
func (s *stream) atEnd(r io.Reader) bool {
	var one [1]byte
	n, err := r.Read(one[:])
	return n == 0 && err == io.EOF
}

// Read gives what has been decompressed.
func (s *stream) Read(p []byte) (int, error) {
	if len(s.now) == 0 {
		if s.whole != nil {
			s.free <- s.whole[:chunkBytes]
			s.whole = nil
		}
		buf, ok := <-s.full
		if !ok {
			s.mu.Lock()
			defer s.mu.Unlock()
			return 0, s.err
		}
		s.now, s.whole = buf, buf
	}
	n := copy(p, s.now)
	s.now = s.now[n:]
	return n, nil
}

// plainReader finds out how r is compressed by how it begins.
func plainReader(r io.Reader) (io.Reader, func(), error) {
	b := bufio.NewReaderSize(r, chunkBytes)
	head, err := b.Peek(4)
	if err != nil && err != io.EOF {
		return nil, nil, damaged(err)
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, nil, damaged(err)
		}
		return z, func() { z.Close() }, nil
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(b, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, nil, damaged(err)
		}
		return z, z.Close, nil
	}
	return b, func() {}, nil
}
