package sandboxtest

import "testing"

func testCode(t *testing.T, h Harness) {
	cases{}.run(t, h)
}
