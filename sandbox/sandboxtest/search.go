package sandboxtest

import "testing"

func testSearch(t *testing.T, h Harness) {
	cases{}.run(t, h)
}
