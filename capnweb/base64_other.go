//go:build !amd64 || purego

package capnweb

func hasWide() bool { return false }

func decodeWide(_, _ *byte, _ int) int { return 0 }
func encodeWide(_, _ *byte, _ int)     {}
