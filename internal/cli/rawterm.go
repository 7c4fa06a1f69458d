package cli

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/term"

	"github.com/tongs-dev/tongs/sandbox"
)

// isTerminalReader reports whether r is a terminal.
func isTerminalReader(r io.Reader) bool {
	file, ok := r.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// sizeOf is the size of a terminal.
func sizeOf(stream any) (sandbox.TerminalSize, bool) {
	file, ok := stream.(*os.File)
	if !ok {
		return sandbox.TerminalSize{}, false
	}
	columns, rows, err := term.GetSize(int(file.Fd()))
	if err != nil || columns < 1 || rows < 1 || columns > 65535 || rows > 65535 {
		return sandbox.TerminalSize{}, false
	}
	return sandbox.TerminalSize{Columns: columns, Rows: rows}, true
}

// rawMode hands each key on as it is typed, until the returned function is called. What is no
// terminal stays as it is.
func rawMode(r io.Reader) (restore func(), err error) {
	if !isTerminalReader(r) {
		return func() {}, nil
	}
	fd := int(r.(*os.File).Fd())
	before, err := term.MakeRaw(fd)
	if err != nil {
		return nil, fmt.Errorf("the terminal cannot be put into raw mode: %w", err)
	}
	var once sync.Once
	return func() { once.Do(func() { _ = term.Restore(fd, before) }) }, nil
}

// watchSize tells f of each new size of our terminal, until stop is called.
func watchSize(s *streams, f func(sandbox.TerminalSize)) (stop func()) {
	changes := make(chan os.Signal, 1)
	signal.Notify(changes, syscall.SIGWINCH)
	done := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		for {
			select {
			case <-changes:
				f(*terminalSize(s))
			case <-done:
				return
			}
		}
	})
	return func() {
		signal.Stop(changes)
		close(done)
		group.Wait()
	}
}

// detachKey looks for the keys that leave a terminal. Not for several goroutines at once.
type detachKey struct {
	keys []byte
	seen int // how many of them have been typed and are held back
}

// parseDetachKeys reads keys with commas between: a character, or ctrl- and one of a-z @ [ \ ] ^ _.
func parseDetachKeys(text string) (*detachKey, error) {
	if text == "none" || text == "" {
		return nil, nil
	}
	d := &detachKey{}
	for key := range strings.SplitSeq(text, ",") {
		letter, ctrl := strings.CutPrefix(strings.ToLower(key), "ctrl-")
		switch {
		case !ctrl && len(key) == 1 && key[0] > ' ' && key[0] < 0x7f:
			d.keys = append(d.keys, key[0])
		case ctrl && len(letter) == 1 && letter[0] >= 'a' && letter[0] <= 'z':
			d.keys = append(d.keys, letter[0]-'a'+1)
		case ctrl && len(letter) == 1 && letter[0] >= '@' && letter[0] <= '_':
			d.keys = append(d.keys, letter[0]-'@')
		default:
			return nil, fmt.Errorf("--detach-keys %q: write keys with commas between, such as ctrl-],d or ctrl-p,ctrl-q, or none", text)
		}
	}
	return d, nil
}

// filter takes the keys out of what was typed. left says that all were typed: what stands before them
// is still to be passed on.
func (d *detachKey) filter(typed []byte) (pass []byte, left bool) {
	for _, b := range typed {
		if b == d.keys[d.seen] {
			d.seen++
			if d.seen == len(d.keys) {
				d.seen = 0
				return pass, true
			}
			continue
		}
		if d.seen == 1 && len(d.keys) > 1 && b == d.keys[0] {
			// The first key twice is that key once.
			pass = append(pass, b)
			d.seen = 0
			continue
		}
		pass = append(pass, d.keys[:d.seen]...)
		d.seen = 0
		if b == d.keys[0] {
			d.seen = 1
			continue
		}
		pass = append(pass, b)
	}
	return pass, false
}
