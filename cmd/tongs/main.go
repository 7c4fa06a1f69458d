// Tongs runs OpenCode as a service and everything its agents do in an isolated sandbox per session.
// The commands are in internal/cli.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/tongs-dev/tongs/internal/cli"
)

func main() {
	keepToOurselves()
	ctx, cancel := context.WithCancel(context.Background())
	commands := &cli.Signals{}
	go obeySignals(cancel, commands)
	os.Exit(cli.Main(cli.WithSignals(ctx, commands), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// impatience is how long after the first signal another one means "at once". Terminals, timeout(1) and
// supervisors send the first to the process and again to its group.
const impatience = time.Second

// obeySignals ends the command in order at the first signal and at once at a later one, unless the
// command wants them for itself.
func obeySignals(end context.CancelFunc, commands *cli.Signals) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	var first time.Time
	for sig := range signals {
		switch {
		case commands.Give(sig):
		case first.IsZero():
			first = time.Now()
			end()
		case time.Since(first) >= impatience:
			fmt.Fprintln(os.Stderr, "tongs: left at once; what runs in sandboxes goes on: `tongs down` ends it")
			os.Exit(130)
		}
	}
}
