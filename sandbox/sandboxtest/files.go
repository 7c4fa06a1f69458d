package sandboxtest

import "testing"

func testFiles(t *testing.T, h Harness) {
	cases{}.run(t, h)
}
