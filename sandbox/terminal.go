package sandbox

import (
	"context"
	"io"
	"sync"
)

// Terminal is one viewer of a process that has a terminal: what it shows, from a
// cursor on, and a way to type. Any number of viewers can be open at a time, each
// with its own place in the output; the one that typed last has the input.
//
// Read and Write may be called by two goroutines. A context covers all of it.
type Terminal struct {
	ctx  context.Context
	end  context.CancelFunc
	box  *Client
	id   string
	out  Output
	rest []byte

	mu     sync.Mutex // guards what Write needs
	in     io.WriteCloser
	missed int64
	off    int64
}

// OpenTerminal begins to view a process, from a byte of its output on: 0 is all
// that the log still holds, ProcessInfo.LogEnd only what is new. ctx covers the
// viewer's whole life. A process without a terminal can be viewed too, but has no
// size.
func (c *Client) OpenTerminal(ctx context.Context, id string, offset int64) (*Terminal, error) {
	ctx, end := context.WithCancel(ctx)
	out, err := c.Output(ctx, id, OutputOptions{Offset: offset, Follow: true})
	if err != nil {
		end()
		return nil, err
	}
	return &Terminal{ctx: ctx, end: end, box: c, id: id, out: out, off: offset}, nil
}

// Read reads what the terminal shows. io.EOF says that the process has ended and
// all is read; Exit then says how.
func (t *Terminal) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for len(t.rest) == 0 {
		_, data, dropped, err := t.out.Next(t.ctx)
		t.rest = data
		t.mu.Lock()
		t.missed += dropped
		t.off += dropped
		t.mu.Unlock()
		if err != nil {
			return 0, err
		}
	}
	n := copy(b, t.rest)
	t.rest = t.rest[n:]
	t.mu.Lock()
	t.off += int64(n)
	t.mu.Unlock()
	return n, nil
}

// Offset is the place of the first byte not yet read: the one to go on from with
// another viewer.
func (t *Terminal) Offset() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.off
}

// Missed is how many bytes were gone from the log before this viewer read them;
// what it shows is then better drawn anew.
func (t *Terminal) Missed() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.missed
}

// Write types. The first Write takes the input over from whoever has it. When
// another viewer takes it, Write fails with CodeStdinTaken, once: the next one
// takes it back.
func (t *Terminal) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.in == nil {
		in, err := t.box.Stdin(t.ctx, t.id)
		if err != nil {
			return 0, err
		}
		t.in = in
	}
	n, err := t.in.Write(b)
	if err != nil {
		t.letGo()
	}
	return n, err
}

// letGo gives up the input without ending it.
func (t *Terminal) letGo() {
	if w, ok := t.in.(*stdinWriter); ok {
		w.leave()
	}
	t.in = nil
}

// Resize changes the terminal's size, for all viewers.
func (t *Terminal) Resize(size TerminalSize) error { return t.box.Resize(t.ctx, t.id, size) }

// Exit is how the process has ended. It is there once Read has returned io.EOF.
func (t *Terminal) Exit() (Exit, bool) {
	if in := t.out.Info(); in != nil && in.Exit != nil {
		return *in.Exit, true
	}
	return Exit{}, false
}

// Close ends the viewer. The process goes on, with its input open.
func (t *Terminal) Close() error {
	t.end() // frees a Write that waits for the command to read
	_ = t.out.Close()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.letGo()
	return nil
}

var _ io.ReadWriteCloser = (*Terminal)(nil)
