package snapshot_test

import (
	"flag"
	"os"
	"testing"
)

// TestMain makes do with fewer random projects than rapid would make: each starts git a hundred times.
func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "rapid.checks" })
	if !given {
		if err := flag.Set("rapid.checks", "20"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}
