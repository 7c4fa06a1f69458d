package sandboxtest

import "testing"

func testPorts(t *testing.T, h Harness) {
	cases{}.run(t, h)
}
