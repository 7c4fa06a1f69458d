// Package opencodetest gives tests the real OpenCode. It is fetched once into the user's cache
// directory, from the registry that the user has configured, and shared by all tests.
package opencodetest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/internal/opencode"
)

// BinaryEnv names an OpenCode to use instead.
const BinaryEnv = "TONGS_TEST_OPENCODE"

// Binary returns the path of the pinned OpenCode. It skips the test where there is none to be had:
// an unsupported platform, or no registry and an empty cache.
func Binary(tb testing.TB) string {
	tb.Helper()
	if path := os.Getenv(BinaryEnv); path != "" {
		return path
	}
	binary, err := Obtain(tb.Context())
	var known *opencode.ObtainError
	if errors.As(err, &known) && (known.Code == opencode.CodeRegistryUnreachable || known.Code == opencode.CodeUnsupportedPlatform) {
		tb.Skip("OpenCode cannot be obtained here:", err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return binary.Path
}

// Home is the directory in which the tests' OpenCode is kept, laid out like a $TONGS_HOME.
func Home() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(cache, "tongs-test"), nil
}

// Obtain fetches the pinned OpenCode into Home, if it is not there.
func Obtain(ctx context.Context) (opencode.Binary, error) {
	home, err := Home()
	if err != nil {
		return opencode.Binary{}, err
	}
	return opencode.Obtain(ctx, opencode.ObtainOptions{Home: home, Timeout: 10 * time.Minute})
}
