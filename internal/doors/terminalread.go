package doors

import (
	"context"
	"errors"
	"io"
	"time"
	"unicode/utf8"

	"github.com/tongs-dev/tongs/sandbox"
)

// inputTimeout is how long a program in a terminal may leave what is typed unread.
const inputTimeout = 10 * time.Second

func (t *terminal) state() info {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.info
}

func (t *terminal) ended() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.info.Status != "running"
}

// read follows the output until the program has ended, or ctx. The exit is nil when
// nobody knows it.
func (t *terminal) read(ctx context.Context, from int64) (*sandbox.Exit, error) {
	out, err := t.box.Output(ctx, t.id, sandbox.OutputOptions{Offset: from, Follow: true})
	if err != nil {
		return nil, err
	}
	defer out.Close()
	var part []byte // the beginning of a character
	for {
		_, data, dropped, err := out.Next(ctx)
		if dropped > 0 {
			part = nil
			t.add(nil, dropped)
		}
		if len(data) > 0 {
			data = append(part, data...)
			n := whole(data)
			t.add(valid(data[:n]), 0)
			part = append([]byte(nil), data[n:]...)
		}
		switch {
		case errors.Is(err, io.EOF):
			if len(part) > 0 {
				t.add(valid(part), 0)
			}
			if end := out.Info(); end != nil {
				return end.Exit, nil
			}
			return nil, nil
		case err != nil:
			return nil, err
		}
	}
}

// whole is the length of data without the beginning of a character at its end.
func whole(data []byte) int {
	for back := 1; back < utf8.UTFMax && back <= len(data); back++ {
		if at := len(data) - back; utf8.RuneStart(data[at]) {
			if !utf8.FullRune(data[at:]) {
				return at
			}
			break
		}
	}
	return len(data)
}

// valid is data with a replacement for each byte that is no part of a character.
func valid(data []byte) []byte {
	if utf8.Valid(data) {
		return data
	}
	out := make([]byte, 0, len(data)+16)
	for len(data) > 0 {
		r, n := utf8.DecodeRune(data)
		out = utf8.AppendRune(out, r)
		data = data[n:]
	}
	return out
}

// units counts the UTF-16 units of a text.
func units(data []byte) int64 {
	var n int64
	for _, c := range data {
		if utf8.RuneStart(c) {
			n++
		}
		if c >= 0xF0 { // a character of two units
			n++
		}
	}
	return n
}

// add keeps what was printed, and wakes those who watch. What was dropped before
// anybody read it counts as so many units.
func (t *terminal) add(data []byte, dropped int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if dropped > 0 {
		t.units += dropped
		t.buffer, t.gone = nil, t.units
	}
	t.buffer = append(t.buffer, data...)
	t.units += units(data)
	if over := len(t.buffer) - maxReplay; over > 0 {
		for over < len(t.buffer) && !utf8.RuneStart(t.buffer[over]) {
			over++
		}
		t.gone += units(t.buffer[:over])
		t.buffer = append(make([]byte, 0, maxReplay+64<<10), t.buffer[over:]...)
	}
	close(t.changed)
	t.changed = make(chan struct{})
}

// end says that nothing more comes; lost, that this is not known to be the program's end.
func (t *terminal) end(lost bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.info.Status, t.lost = "exited", lost
	close(t.changed)
	t.changed = make(chan struct{})
}

// from returns at most limit bytes of what stands behind a cursor, the cursor behind
// them, and what to wait for when there is nothing. behind says that some of it is gone.
func (t *terminal) from(cursor int64, limit int) (data []byte, next int64, behind, ended bool, changed <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	ended, changed = t.info.Status != "running", t.changed
	if cursor >= t.units {
		return nil, cursor, false, ended, changed
	}
	if cursor < t.gone {
		cursor, behind = t.gone, true
	}
	at := skip(t.buffer, cursor-t.gone)
	data = t.buffer[at:]
	if len(data) > limit {
		n := limit
		for n > 0 && !utf8.RuneStart(data[n]) {
			n--
		}
		data = data[:n]
	}
	data = append([]byte(nil), data...)
	return data, cursor + units(data), behind, ended, changed
}

// skip is the number of bytes that so many units take. It is linear, and the buffer
// is bounded.
func skip(data []byte, n int64) int {
	at := 0
	for n > 0 && at < len(data) {
		size := 1
		for at+size < len(data) && !utf8.RuneStart(data[at+size]) {
			size++
		}
		n--
		if size == utf8.UTFMax {
			n--
		}
		at += size
	}
	return at
}

// cursor is the end of what there is.
func (t *terminal) cursor() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.units
}
