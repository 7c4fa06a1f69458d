package cli

import (
	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/driver/linux"
)

// testDriver makes the driver of a home as `tongs up` does, with a guest of the tests'.
func testDriver(home string, guest driver.Guest) (driver.Driver, error) {
	d, err := linux.New(linux.Config{Home: home, Guest: &guest, Runtimes: runtimes(&Config{Home: home})})
	if err != nil {
		return nil, err
	}
	return d, nil
}
