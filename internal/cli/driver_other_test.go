//go:build !linux

package cli

import "github.com/tongs-dev/tongs/internal/driver"

func cachedGVisor() string { return "" }

func testDriver(string, driver.Guest) (driver.Driver, error) { return nil, noLinux("make sandboxes") }
