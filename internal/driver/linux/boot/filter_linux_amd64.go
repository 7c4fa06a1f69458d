package boot

import "golang.org/x/sys/unix"

// x32 programs use this architecture's calls with one bit set.
const (
	auditArch        = unix.AUDIT_ARCH_X86_64
	firstForeignCall = 1 << 30
)
