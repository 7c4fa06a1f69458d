package sandboxtest

import "testing"

func testWatch(t *testing.T, h Harness) {
	cases{}.run(t, h)
}
