package sandboxtest

import "testing"

func testShell(t *testing.T, h Harness) {
	cases{}.run(t, h)
}
