//go:build !amd64 || purego

package capnweb

const hasWide = false

func decodeWide(_, _ *byte, _ int) int { return 0 }
func encodeWide(_, _ *byte, _ int)     {}
