//go:build !purego

package capnweb

import "golang.org/x/sys/cpu"

// hasWide says that base64 can be done in wide steps: decodeWide takes 32
// characters and writes 32 bytes, of which 24 count; encodeWide takes 24 bytes, looks at
// 28, and writes 32 characters.
var hasWide = cpu.X86.HasAVX2

// decodeWide makes steps, as long as all characters are in the standard alphabet,
// and returns how many it made.
//
//go:noescape
func decodeWide(out, text *byte, steps int) (made int)

//go:noescape
func encodeWide(out, data *byte, steps int)
