package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/tongs-dev/tongs/internal/driver"
)

// stage makes a user's own OpenCode visible to the agent host without showing it the folder that the
// binary is in: a hard link, or else a copy, under <home>/opencode/own-<hash>/. The hash is of the
// path, size and time, so that a changed binary is staged anew and an unchanged one is not.
func stage(home, path string) (string, error) {
	const op = "stage an own OpenCode"
	info, err := os.Stat(path)
	if err != nil {
		return "", driver.Wrap(op, err)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %d", path, info.Size(), info.ModTime().UnixNano()))
	dir := filepath.Join(home, "opencode", "own-"+hex.EncodeToString(sum[:6]))
	staged := filepath.Join(dir, "opencode")
	if _, err := os.Stat(staged); err == nil {
		return staged, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", driver.Wrap(op, err)
	}
	temporary := fmt.Sprintf("%s.new-%d", staged, os.Getpid())
	defer os.Remove(temporary)
	if err := os.Link(path, temporary); err != nil {
		if err := copyFile(temporary, path); err != nil {
			return "", driver.Wrap(op, err)
		}
	}
	if err := os.Rename(temporary, staged); err != nil {
		return "", driver.Wrap(op, err)
	}
	return staged, nil
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
