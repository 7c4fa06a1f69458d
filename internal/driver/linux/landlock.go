//go:build linux

package linux

import (
	"fmt"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/driver/linux/boot"
)

// checkLandlock says whether commands have a second fence around them.
func checkLandlock() driver.Finding {
	const name = "landlock"
	version := boot.LandlockVersion()
	if weak := boot.LandlockWeakness(version); version == 0 {
		return finding(name, driver.Warning, "the kernel has no Landlock, or it is switched off: "+weak,
			"Linux 6.12 or later, with landlock in the list lsm= on the kernel's command line (see /sys/kernel/security/lsm)")
	} else if weak != "" {
		return finding(name, driver.Warning, fmt.Sprintf("version %d: %s", version, weak), "Linux 6.12 or later")
	}
	return finding(name, driver.OK, fmt.Sprintf("version %d: commands have a second fence around them", version), "")
}
