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
	go obeySignals(cancel)
	os.Exit(cli.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// impatience is how long after the first signal another one means "at once". Terminals, timeout(1) and
// supervisors send the first to the process and again to its group.
const impatience = time.Second

// obeySignals ends the command in order at the first signal and at once at a later one.
func obeySignals(end context.CancelFunc) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	<-signals
	first := time.Now()
	end()
	for range signals {
		if time.Since(first) >= impatience {
			fmt.Fprintln(os.Stderr, "tongs: left at once; what runs in sandboxes goes on: `tongs down` ends it")
			os.Exit(130)
		}
	}
}
