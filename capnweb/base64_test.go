package capnweb_test

import (
	"bytes"
	"encoding/base64"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tongs-dev/tongs/capnweb"
)

// Every length around the sizes of the steps, in the middle of a larger buffer
// of which nothing else is touched.
func TestBase64Lengths(t *testing.T) {
	t.Parallel()
	r := rand.NewChaCha8([32]byte{1})
	for n := range 400 {
		data := make([]byte, n)
		_, _ = r.Read(data)
		text := capnweb.AppendBase64([]byte("before"), data)
		if want := "before" + base64.RawStdEncoding.EncodeToString(data); string(text) != want {
			t.Fatalf("%d bytes: %s, want %s", n, text, want)
		}
		text = text[len("before"):]
		room := bytes.Repeat([]byte{0x5a}, n+128)
		if !capnweb.DecodeStrict(room[64:64+n:64+n], text) || !bytes.Equal(room[64:64+n], data) {
			t.Fatalf("%d bytes do not come back", n)
		}
		if rest := append(room[:64:64], room[64+n:]...); !bytes.Equal(rest, bytes.Repeat([]byte{0x5a}, 128)) {
			t.Fatalf("%d bytes: written outside of the buffer", n)
		}
	}
}

// Every character that is not in the alphabet is seen, wherever it stands.
func TestBase64Alphabet(t *testing.T) {
	t.Parallel()
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	for _, n := range []int{4, 8, 31, 32, 63, 64, 76, 100, 131} {
		for at := range n {
			for c := range 256 {
				text := bytes.Repeat([]byte{alphabet[(at*7+n)%64]}, n)
				text[at] = byte(c)
				out := make([]byte, base64.RawStdEncoding.DecodedLen(n))
				ok := capnweb.DecodeStrict(out, text)
				in := bytes.IndexByte([]byte(alphabet), byte(c)) >= 0
				if n%4 == 1 || c == '\r' || c == '\n' {
					continue // refused, or skipped, by the standard library
				}
				if ok != in {
					t.Fatalf("%q at %d of %d: %v", rune(c), at, n, ok)
				}
				if want, err := base64.RawStdEncoding.DecodeString(string(text)); ok && (err != nil || !bytes.Equal(out, want)) {
					t.Fatalf("%q at %d of %d: %x, want %x %v", rune(c), at, n, out, want, err)
				}
			}
		}
	}
}

// FuzzLongBytes compares long bytes, which are decoded while the message is parsed,
// with the same ones written with an escape, which are not.
func FuzzLongBytes(f *testing.F) {
	for _, end := range []string{"", "AA", "AA==", "=", "-_", "+/8", "x y", `\/`, `\"`, "é", "\x00", `","Int16Array`, `","nope`, `"`, "Zm9v]"} {
		f.Add(end)
	}
	f.Fuzz(func(t *testing.T, end string) {
		if strings.ContainsAny(end, "\r\n") {
			return
		}
		most := strings.Repeat("Zm9v", 80)
		fast, err := capnweb.Reencode([]byte(`["bytes","` + most + end + `"]`))
		slow, slowErr := capnweb.Reencode([]byte(`["bytes","\u005a` + most[1:] + end + `"]`))
		if (err == nil) != (slowErr == nil) || !bytes.Equal(fast, slow) {
			t.Fatalf("%q:\n%s %v\n%s %v", end, fast, err, slow, slowErr)
		}
	})
}

func BenchmarkBase64(b *testing.B) {
	data := make([]byte, 64<<10)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(data)
	text := capnweb.AppendBase64(nil, data)
	b.Run("encode", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			text = capnweb.AppendBase64(text[:0], data)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			if !capnweb.DecodeStrict(data, text) {
				b.Fatal("refused")
			}
		}
	})
}
