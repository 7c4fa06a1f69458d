package sandboxtest

import "testing"

func testProcesses(t *testing.T, h Harness) {
	cases{}.run(t, h)
}
