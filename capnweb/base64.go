package capnweb

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"slices"
	"sync"

	"github.com/tongs-dev/tongs/capnweb/internal/bufpool"
)

// base64Tables serve in steps of six and eight. Bytes travel as base64. Wide steps (base64_amd64.s) make it more than
// ten times as fast as the standard library where the processor has them, and these tables about
// twice as fast elsewhere. The standard library does the ends.
type base64Tables struct {
	decode [4][256]uint32  // the bits of each character at each of four places, or bit 31
	encode [1 << 12]uint16 // the two characters of each twelve bits
}

// tables are made when they are first wanted, since a guest that starts wants nothing less.
var tables = sync.OnceValue(func() *base64Tables {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	all := &base64Tables{}
	for place := range all.decode {
		t := &all.decode[place]
		for c := range t {
			t[c] = 1 << 31
		}
		for v := range uint32(len(alphabet)) {
			t[alphabet[v]] = v << (18 - 6*place)
		}
	}
	for v := range all.encode {
		all.encode[v] = uint16(alphabet[v>>6]) | uint16(alphabet[v&63])<<8
	}
	return all
})

// appendBase64 appends data in the standard alphabet, without padding.
func appendBase64(b, data []byte) []byte {
	n := base64.RawStdEncoding.EncodedLen(len(data))
	b = slices.Grow(b, n)
	out := b[len(b) : len(b)+n]
	if len(data) >= 28 && hasWide() {
		steps := (len(data) - 4) / 24
		encodeWide(&out[0], &data[0], steps)
		data, out = data[24*steps:], out[32*steps:]
	}
	if len(data) < 8 { // nothing needs the table
		base64.RawStdEncoding.Encode(out, data)
		return b[:len(b)+n]
	}
	t := &tables().encode
	for len(data) >= 8 && len(out) >= 8 {
		w := binary.BigEndian.Uint64(data)
		binary.LittleEndian.PutUint64(out, uint64(t[w>>52])|uint64(t[w>>40&0xfff])<<16|
			uint64(t[w>>28&0xfff])<<32|uint64(t[w>>16&0xfff])<<48)
		data, out = data[6:], out[8:]
	}
	base64.RawStdEncoding.Encode(out, data)
	return b[:len(b)+n]
}

// decodeStrict decodes text in the standard alphabet without padding into out,
// which has the right length. It reports whether text is nothing else.
func decodeStrict(out, text []byte) bool {
	if len(out) >= 32 && len(text) >= 32 && hasWide() {
		steps := min(len(text)/32, (len(out)-8)/24)
		made := decodeWide(&out[0], &text[0], steps)
		if made < steps {
			return false
		}
		text, out = text[32*steps:], out[24*steps:]
	}
	all := &tables().decode
	t0, t1, t2, t3 := &all[0], &all[1], &all[2], &all[3]
	for len(text) >= 8 && len(out) >= 8 {
		x := t0[text[0]] | t1[text[1]] | t2[text[2]] | t3[text[3]]
		y := t0[text[4]] | t1[text[5]] | t2[text[6]] | t3[text[7]]
		if (x|y)>>31 != 0 {
			return false
		}
		binary.BigEndian.PutUint64(out, uint64(x)<<40|uint64(y)<<16)
		text, out = text[8:], out[6:]
	}
	n, err := base64.RawStdEncoding.Decode(out, text)
	return err == nil && n == len(out)
}

// minEncoded is how long base64 must be for it to be decoded while it is parsed.
const minEncoded = 256

// encodedOnly is the count of a string that is nothing but base64, and is still to
// be decoded.
const encodedOnly = -1

// mostIs reports whether n bytes are most of the message.
func (d *document) mostIs(n int) bool { return n > len(d.src)/2 && n > bufpool.Most }

// isBase64 reports whether decodeStrict would decode text.
func isBase64(text []byte) bool {
	const piece = 32 << 10
	out := bufpool.GetChunk(piece / 4 * 3)
	defer bufpool.PutChunk(out)
	if hasNewline(text[max(0, len(text)-minEncoded/2):]) { // of which decodeStrict leaves the end to the library
		return false
	}
	for len(text) > 0 {
		n := min(len(text), piece)
		if !decodeStrict(out[:base64.RawStdEncoding.DecodedLen(n)], text[:n]) {
			return false
		}
		text = text[n:]
	}
	return true
}

// isBytes reports whether node n is the tag of bytes.
func (d *document) isBytes(n int32) bool {
	nd := &d.nodes[n]
	return nd.kind == kindString && string(d.src[nd.start:nd.end]) == "bytes"
}

// encodedBytes is value, for what follows the tag of bytes. That a long string is
// base64 shows that it is a string too, and is seen faster.
func (d *document) encodedBytes(pos, depth int) (int32, int, error) {
	if pos >= len(d.src) || d.src[pos] != '"' {
		return d.value(pos, depth)
	}
	start := pos + 1
	n := bytes.IndexByte(d.src[start:], '"')
	if n < minEncoded {
		return d.str(pos)
	}
	text := d.src[start : start+n]
	data := text
	for i := 0; i < 2 && data[len(data)-1] == '='; i++ {
		data = data[:len(data)-1]
	}
	if d.own && d.mostIs(len(text)) {
		if !isBase64(data) {
			return d.str(pos)
		}
		child := d.add(node{
			start: int32(start), end: int32(start + len(data)), first: -1, next: -1, kind: kindString, count: encodedOnly,
		})
		return child, start + n + 1, nil
	}
	out := bufpool.GetChunk(base64.RawStdEncoding.DecodedLen(len(data)))
	if !decodeStrict(out, data) || hasNewline(data[len(data)-minEncoded/2:]) { // of which decodeStrict leaves the end to the library
		bufpool.PutChunk(out)
		return d.str(pos)
	}
	d.decoded = append(d.decoded, out)
	child := d.add(node{
		start: int32(start), end: int32(start + n), first: -1, next: -1, kind: kindString, count: int32(len(d.decoded)),
	})
	return child, start + n + 1, nil
}

// takeDecoded is what parse has decoded of string n, once; nil if there is nothing.
func (d *document) takeDecoded(n int32) []byte {
	nd := &d.nodes[n]
	if nd.count == encodedOnly && d.own {
		// Decoded where it stands: the message is given away with it.
		text := d.src[nd.start:nd.end]
		size := base64.RawStdEncoding.DecodedLen(len(text))
		if decodeStrict(text[:size], text) {
			d.own = false
			nd.end = nd.start
			return text[:size:size]
		}
	}
	i := nd.count - 1
	if i < 0 {
		return nil
	}
	b := d.decoded[i]
	d.decoded[i] = nil
	return b
}

// dropDecoded gives back what nobody took.
func (d *document) dropDecoded() {
	for i, b := range d.decoded {
		bufpool.PutChunk(b)
		d.decoded[i] = nil
	}
	if cap(d.decoded) > 1<<10 {
		d.decoded = nil
	}
	d.decoded = d.decoded[:0]
}
