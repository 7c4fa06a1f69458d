package cli

import (
	"encoding/json"
	"fmt"
	"runtime"

	"github.com/tongs-dev/tongs"
	"github.com/tongs-dev/tongs/internal/opencode"
)

type versionCommand struct {
	JSON bool `name:"json" help:"Print one JSON object."`
}

// Help is the long help text.
func (versionCommand) Help() string {
	return "EXIT STATUS\n  0  always"
}

// Run prints the versions.
func (c *versionCommand) Run(s *streams) error {
	if c.JSON {
		return json.NewEncoder(s.stdout).Encode(map[string]string{
			"tongs": tongs.Version, "opencode": opencode.Version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH,
		})
	}
	_, err := fmt.Fprintf(s.stdout, "tongs %s (%s/%s, %s), runs OpenCode %s\n",
		tongs.Version, runtime.GOOS, runtime.GOARCH, runtime.Version(), opencode.Version)
	return err
}
