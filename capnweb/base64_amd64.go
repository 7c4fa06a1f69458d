//go:build !purego

package capnweb

import "sync"

// hasWide says that base64 can be done in wide steps: decodeWide takes 32
// characters and writes 32 bytes, of which 24 count; encodeWide takes 24 bytes, looks at
// 28, and writes 32 characters.
var hasWide = sync.OnceValue(hasAVX2)

// hasAVX2 asks the processor, and whether the system keeps the wide registers
// (Intel's manual, volume 1, 14.7.1). On a virtual machine each question is one to the
// host, and golang.org/x/sys/cpu asks many whenever a program starts; here that is put
// off until the answer is wanted.
func hasAVX2() bool

// decodeWide makes steps, as long as all characters are in the standard alphabet,
// and returns how many it made.
//
//go:noescape
func decodeWide(out, text *byte, steps int) (made int)

//go:noescape
func encodeWide(out, data *byte, steps int)
