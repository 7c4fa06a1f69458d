package sandboxtest

import "testing"

func testGit(t *testing.T, h Harness) {
	cases{}.run(t, h)
}
