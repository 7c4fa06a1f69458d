package cli

import (
	"os"
	"path/filepath"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/driver/linux"
	"github.com/tongs-dev/tongs/internal/driver/oci"
)

// cachedGVisor gives the gVisor that tests of other packages have built, where it can be used; else "".
func cachedGVisor() string {
	cache, err := os.UserCacheDir()
	if err != nil || os.Geteuid() != 0 {
		return ""
	}
	p, err := oci.FindGVisor(filepath.Join(cache, "tongs", "runtimes"))
	if err != nil {
		return ""
	}
	return p.Path
}

// testDriver makes the driver of a home as `tongs up` does, with a guest of the tests'.
func testDriver(home string, guest driver.Guest) (driver.Driver, error) {
	d, err := linux.New(linux.Config{Home: home, Guest: &guest, Runtimes: runtimes(&Config{Home: home})})
	if err != nil {
		return nil, err
	}
	return d, nil
}
