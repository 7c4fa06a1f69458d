//go:build linux && !amd64 && !arm64

package boot

// There is no filter for this architecture yet.
const (
	auditArch   = 0
	profileLast = 0
)

var (
	missingHere       []uint32
	profileAllowed    []span
	profileConditions []condition
	profileAnswers    map[uint32]uint32
)
