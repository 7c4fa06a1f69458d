package sandboxtest

import "testing"

func testTerminals(t *testing.T, h Harness) {
	cases{}.run(t, h)
}
