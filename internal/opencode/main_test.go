package opencode_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if mode, ok := os.LookupEnv(fakeMode); ok {
		fakeOpenCode(mode)
		return
	}
	goleak.VerifyTestMain(m)
}
