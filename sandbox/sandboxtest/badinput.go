package sandboxtest

import "testing"

func testBadInput(t *testing.T, h Harness) {
	cases{}.run(t, h)
}
