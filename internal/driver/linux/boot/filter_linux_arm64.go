package boot

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_AARCH64

// missingHere are this architecture's calls that are answered as by a kernel without them.
var missingHere []uint32
