//go:build linux && !amd64 && !arm64

package boot

const (
	auditArch        = 0
	firstForeignCall = 0
)
