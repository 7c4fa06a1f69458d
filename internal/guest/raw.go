package guest

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

const copyBuffer = 128 << 10

var copyBuffers = sync.Pool{New: func() any { b := make([]byte, copyBuffer); return &b }}

// serveLog sends a process's log from an offset on, and takes the reader's
// confirmations: eight bytes each, big endian, the offset up to which it has
// everything.
func (s *server) serveLog(conn *net.UnixConn, p *process, opts sandbox.OutputOptions) {
	p.log.attach()
	defer p.log.detach()
	gone := make(chan struct{})
	s.wg.Go(func() {
		defer close(gone)
		r := bufio.NewReaderSize(conn, 64)
		var b [8]byte
		for {
			if _, err := io.ReadFull(r, b[:]); err != nil {
				return
			}
			if off := binary.BigEndian.Uint64(b[:]); off < 1<<62 {
				p.log.confirm(int64(off))
			}
		}
	})
	// The other goroutine ends when the connection does.
	defer func() { conn.Close(); <-gone }()
	k := newSink(p.log, conn, opts.Offset)
	_, until, _ := p.log.span()
	for {
		off, ok := k.next()
		if !ok {
			return
		}
		if _, end, ended := p.log.span(); off >= end && ended || !opts.Follow && off >= until {
			s.finishFrames(conn, gone, k.w.WriteJSON(sandbox.FrameEnd, p.info()))
			return
		}
		if opts.Follow && p.log.install(k) {
			select {
			case <-p.log.over:
			case <-k.failed:
			case <-gone:
				conn.Close() // frees whoever is writing
				p.log.sink.CompareAndSwap(k, nil)
				return
			}
			p.log.sink.CompareAndSwap(k, nil)
			continue
		}
		select {
		case <-p.log.waitChange(off):
		case <-gone:
			return
		}
	}
}

// finishFrames ends a raw connection whose last frame has been written: what the
// client still sends is read before the close, so that it sees an end and not a
// reset.
func (s *server) finishFrames(conn *net.UnixConn, gone <-chan struct{}, err error) {
	if err != nil {
		return
	}
	_ = conn.CloseWrite()
	t := time.NewTimer(s.patience)
	defer t.Stop()
	select {
	case <-gone:
	case <-t.C:
	}
}

// serveRead sends a file.
func (s *server) serveRead(conn *net.UnixConn, f *regular, length int64) {
	defer f.Close()
	w := sandbox.NewFrameWriter(conn)
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	for length > 0 {
		n, err := f.Read((*buf)[:min(length, copyBuffer)])
		if n > 0 {
			if w.Write(sandbox.FrameData, (*buf)[:n]) != nil {
				return
			}
			length -= int64(n)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			_ = w.WriteError(err)
			return
		}
	}
	_ = w.WriteJSON(sandbox.FrameEnd, info(f.path, &f.st))
}

// serveWrite takes a file's content: frames of data and an end, without which
// nothing is changed.
func (s *server) serveWrite(conn *net.UnixConn, fw *fileWriter) {
	defer fw.abort()
	r, w := sandbox.NewFrameReader(conn), sandbox.NewFrameWriter(conn)
	fail := func(err error) {
		fw.abort() // before it is told
		if w.WriteError(err) == nil {
			_ = conn.CloseWrite()
			_ = conn.SetReadDeadline(time.Now().Add(s.patience))
			_, _ = io.Copy(io.Discard, conn)
		}
	}
	for {
		kind, data, err := r.Next()
		switch {
		case err != nil:
			return // the client went away, or gave up
		case kind == sandbox.FrameData:
			if _, err := fw.Write(data); err != nil {
				fail(err)
				return
			}
		case kind == sandbox.FrameEnd:
			fi, err := fw.commit()
			if err != nil {
				fail(err)
				return
			}
			_ = w.WriteJSON(sandbox.FrameEnd, fi)
			return
		default:
			fail(sandbox.Errf(sandbox.CodeInvalidArgument, "write file", "a frame of an unknown kind came", ""))
			return
		}
	}
}

// serveStdin passes frames of data to a command's standard input, and closes it
// at the end frame. A connection that just breaks leaves it open for the next.
func (s *server) serveStdin(conn *net.UnixConn, p *process, me *inputWriter) {
	r, w := sandbox.NewFrameReader(conn), sandbox.NewFrameWriter(conn)
	me.conn = conn
	err := p.stdin.take(p, me)
	if err == nil {
		err = p.stdin.copy(p, me, r)
	}
	close(me.left)
	switch {
	case errors.Is(err, io.EOF):
		p.stdin.end()
		_ = w.Write(sandbox.FrameEnd, nil)
	case err != nil:
		_ = conn.SetWriteDeadline(time.Now().Add(s.patience))
		if w.WriteError(err) == nil {
			_ = conn.CloseWrite()
			_ = conn.SetReadDeadline(time.Now().Add(s.patience))
			_, _ = io.Copy(io.Discard, conn)
		}
	}
}

// copy writes what w's connection brings: until its end frame (io.EOF), the
// connection's own end (nil), or an error that w has to be told.
func (s *stdin) copy(p *process, w *inputWriter, r *sandbox.FrameReader) error {
	for {
		kind, data, err := r.Next()
		switch {
		case w.taken.Load():
			return stdinTaken(p)
		case err != nil:
			return nil
		case kind == sandbox.FrameData:
			if _, err := s.f.Write(data); w.taken.Load() {
				return stdinTaken(p)
			} else if err != nil {
				return stdinClosed(p)
			}
		case kind == sandbox.FrameEnd:
			return io.EOF
		default:
			return sandbox.Errf(sandbox.CodeInvalidArgument, "stdin", "a frame of an unknown kind came", "")
		}
	}
}

func stdinTaken(p *process) error {
	return sandbox.Errf(sandbox.CodeStdinTaken, "stdin", "another writer has taken over the standard input of process "+p.id, "open it again to take it back")
}

func stdinClosed(p *process) error {
	return sandbox.Errf(sandbox.CodeStdinClosed, "stdin", "the standard input of process "+p.id+" is closed", "start it with Stdin, and write before it ends")
}

// relay joins two connections until both directions have ended.
func relay(a *net.UnixConn, b net.Conn) {
	defer a.Close()
	defer b.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, err := io.Copy(b, a)
		if err != nil {
			b.Close()
			a.Close()
			return
		}
		closeWrite(b)
	}()
	_, err := io.Copy(a, b)
	if err != nil {
		a.Close()
		b.Close()
	} else {
		_ = a.CloseWrite()
	}
	<-done
}

func closeWrite(c net.Conn) {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		_ = h.CloseWrite()
	}
}
