package sandboxtest

import "testing"

func testDefects(t *testing.T, h Harness) {
	cases{}.run(t, h)
}
