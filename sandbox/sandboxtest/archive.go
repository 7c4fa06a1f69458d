package sandboxtest

import "testing"

func testArchive(t *testing.T, h Harness) {
	cases{}.run(t, h)
}
