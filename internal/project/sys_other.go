//go:build !linux

package project

import (
	"os"

	"golang.org/x/sys/unix"
)

// Elsewhere there are no sandboxes, and so no layers.

func openBeneath(int, string, int, uint32) (int, error) { return -1, unix.ENOSYS }

func statOf(st *unix.Stat_t) stat { return stat{Mode: uint32(st.Mode), Size: st.Size} }

func cloneFile(_, _ *os.File) bool { return false }

func makeOpaque(string) error { return unix.ENOSYS }

func bound(int, int64) {}
