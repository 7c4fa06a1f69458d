package capnweb_test

import (
	"bytes"
	"testing"

	"github.com/tongs-dev/tongs/capnweb"
)

// spoil overwrites what it was given.
func spoil(b []byte) []byte {
	for i := range b {
		b[i] = 'x'
	}
	return b
}

// TestBytesAreOnesOwn: whoever gets bytes may write to them, and nobody else who
// has got or will get the same sees it.
func TestBytesAreOnesOwn(t *testing.T) {
	t.Parallel()
	text := func() []byte { return []byte("some text") }
	type pair struct {
		B []byte        `json:"b"`
		F *capnweb.Stub `json:"f"`
	}
	main := capnweb.NewTarget(capnweb.Methods{
		"text": text,
		"with": func() any {
			return capnweb.Object{{Key: "b", Value: text()}, {Key: "f", Value: capnweb.Func(func() {})}}
		},
		"spoil":  spoil,
		"spoils": func(a, b []byte) [][]byte { return [][]byte{spoil(a), b} },
	})
	client, server := connect(t, nil, main)
	ctx := testContext(t)
	for name, api := range map[string]*capnweb.Stub{"session": client.Main(), "local": capnweb.NewStub(main)} {
		t.Run(name, func(t *testing.T) {
			defer api.Close()
			mine := text()
			if got, err := capnweb.Call[[]byte](ctx, api, "spoil", mine); err != nil || string(got) != "xxxxxxxxx" || string(mine) != "some text" {
				t.Errorf("%s, %v; the caller's: %s", got, err, mine)
			}
			got, err := capnweb.Call[[][]byte](ctx, api, "spoils", mine, mine)
			if err != nil || string(got[0]) != "xxxxxxxxx" || string(got[1]) != "some text" {
				t.Errorf("%s, %v", got, err)
			}

			p := api.Call("text")
			defer p.Close()
			got, err = capnweb.Call[[][]byte](ctx, api, "spoils", p, p) // the peer's own result
			if err != nil || string(got[1]) != "some text" {
				t.Errorf("%s, %v", got, err)
			}
			for range 2 {
				var b []byte
				if err := p.Await(ctx, &b); err != nil || !bytes.Equal(b, text()) {
					t.Errorf("%s, %v", b, err)
				}
				spoil(b)
			}

			q := api.Call("with")
			defer q.Close()
			for range 2 {
				var x pair
				if err := q.Await(ctx, &x); err != nil || !bytes.Equal(x.B, text()) {
					t.Errorf("beside a stub: %s, %v", x.B, err)
				}
				spoil(x.B)
				x.F.Close()
				var part []byte
				if err := q.Get("b").Await(ctx, &part); err != nil || !bytes.Equal(part, text()) {
					t.Errorf("a part beside a stub: %s, %v", part, err)
				}
				spoil(part)
			}
		})
	}
	waitStats(t, client, 1, 1)
	waitStats(t, server, 1, 1)
}
