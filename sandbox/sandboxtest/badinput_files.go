package sandboxtest

import "testing"

func testBadInputFiles(t *testing.T, h Harness) {
	cases{}.run(t, h)
}
