// Tongs runs OpenCode as a service and everything its agents do in an isolated sandbox per session.
// The commands are in internal/cli.
package main

import (
	"context"
	"os"

	"github.com/tongs-dev/tongs/internal/cli"
)

func main() {
	keepToOurselves()
	os.Exit(cli.Main(cli.ObeySignals(context.Background()), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
