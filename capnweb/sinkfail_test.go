package capnweb

import (
	"errors"
	"testing"
)

// TestCloseBehindAFailedChunk closes a stream while its sink still has the chunk on which it then fails: what
// was written is lost, so the close must not be acknowledged. A reader that leaves has lost nothing.
func TestCloseBehindAFailedChunk(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		start func()
		want  bool
	}{{"sink", func() {}, true}, {"reader", nil, false}} {
		p := newPipe(nil, 1<<20)
		p.start = test.start
		p.push(chunkItem{p: &payload{v: "lost"}})
		ack := p.push(chunkItem{eof: true})
		p.cancel(errors.New("the disk is full"))
		answered := make(chan error, 1)
		ack.pull(newBudget(), func(_ *payload, err error) { answered <- err })
		select {
		case err := <-answered:
			if (err != nil) != test.want {
				t.Errorf("%s: the close ends with %v", test.name, err)
			}
		default:
			t.Errorf("%s: the close is not answered", test.name)
		}
	}
}
