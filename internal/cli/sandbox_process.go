package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/tongs-dev/tongs/sandbox"
)

type sandboxPSCommand struct {
	All   bool   `short:"a" help:"Those that have ended, too, as long as they are remembered."`
	Quiet bool   `short:"q" help:"Only ids, one a line."`
	JSON  bool   `name:"json" help:"Print one JSON array."`
	Name  string `arg:"" help:"The sandbox."`
}

// Help is the long help text.
func (sandboxPSCommand) Help() string {
	return `Processes that these have started themselves are not listed: "tongs sandbox exec NAME ps aux" shows all.

EXIT STATUS
  0  they are listed
  1  they could not be listed
  2  wrong usage`
}

// Run lists processes.
func (c *sandboxPSCommand) Run(ctx context.Context, s *streams, g *Globals, a *APIFlags) error {
	return a.with(ctx, g, c.Name, func(box *sandbox.Client) error {
		all, err := box.List(ctx)
		if err != nil {
			return err
		}
		if !c.All {
			all = slices.DeleteFunc(all, func(p sandbox.ProcessInfo) bool { return !p.Running })
		}
		slices.SortFunc(all, func(a, b sandbox.ProcessInfo) int { return a.Started.Compare(b.Started) })
		if c.JSON {
			return json.NewEncoder(s.stdout).Encode(append([]sandbox.ProcessInfo{}, all...))
		}
		if c.Quiet {
			for _, p := range all {
				fmt.Fprintln(s.stdout, p.ID)
			}
			return nil
		}
		return table(s.stdout, func(w io.Writer) {
			fmt.Fprintln(w, "ID\tPID\tSTATE\tSTARTED\tCOMMAND")
			for _, p := range all {
				fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", p.ID, p.PID, processState(p), ago(p.Started), shorten(printable(strings.Join(p.Argv, " ")), 60))
			}
		})
	})
}

func processState(p sandbox.ProcessInfo) string {
	switch {
	case p.Running:
		return "running"
	case p.Exit == nil:
		return "ended"
	case p.Exit.TimedOut:
		return "timed out"
	case p.Exit.Signal != "":
		return p.Exit.Signal
	}
	return fmt.Sprintf("exit %d", p.Exit.Code)
}

type sandboxKillCommand struct {
	Signal string   `short:"s" placeholder:"SIGNAL" help:"INT, TERM, KILL, 9 … Default: TERM, and two seconds later KILL to what is left."`
	Name   string   `arg:"" help:"The sandbox."`
	ID     []string `arg:"" help:"Ids of processes, as ps shows them."`
}

// Help is the long help text.
func (sandboxKillCommand) Help() string {
	return `EXIT STATUS
  0  it was sent to each of them
  1  one is not there, or cannot be reached
  2  wrong usage`
}

// Run sends signals.
func (c *sandboxKillCommand) Run(ctx context.Context, _ *streams, g *Globals, a *APIFlags) error {
	if c.Signal != "" {
		if _, err := sandbox.ParseSignal(c.Signal); err != nil {
			return usageError{err}
		}
	}
	return a.with(ctx, g, c.Name, func(box *sandbox.Client) error {
		for _, id := range c.ID {
			err := error(nil)
			if c.Signal == "" {
				err = box.Kill(ctx, id)
			} else {
				err = box.Signal(ctx, id, c.Signal)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

type sandboxLogsCommand struct {
	Follow bool   `short:"f" help:"Go on until the process ends."`
	Since  int64  `placeholder:"OFFSET" help:"Begin at this byte of the output; below 0, so many bytes before its end."`
	JSON   bool   `name:"json" help:"Print JSON objects, one a line, each with its offset."`
	Name   string `arg:"" help:"The sandbox."`
	ID     string `arg:"" optional:"" help:"The process. Default: the only one that runs."`
}

// Help is the long help text.
func (sandboxLogsCommand) Help() string {
	return `What the process wrote to standard output comes out there, and what it wrote to standard error here too.
A log holds the last MiB unless its process was started with another bound; what is gone is said.

EXIT STATUS
  0  it is printed
  1  there is no such process, or it could not be read
  2  wrong usage`
}

// Run prints a log.
func (c *sandboxLogsCommand) Run(ctx context.Context, s *streams, g *Globals, a *APIFlags) error {
	v := &viewer{s: s, g: g, api: a, name: c.Name, json: c.JSON}
	if err := v.open(ctx); err != nil {
		return err
	}
	defer v.close()
	p, err := c.process(ctx, v.client())
	if err != nil {
		return err
	}
	offset := c.Since
	if offset < 0 {
		offset = max(0, p.LogEnd+offset)
	}
	if offset > p.LogEnd {
		return usageError{fmt.Errorf("--since %d: the output has %d bytes so far", offset, p.LogEnd)}
	}
	if c.Follow {
		end, err := v.follow(ctx, p.ID, offset)
		if err == nil && c.JSON {
			_ = v.ended(end) // prints how it ended
		}
		return err
	}
	out, err := v.client().Output(ctx, p.ID, sandbox.OutputOptions{Offset: offset})
	if err != nil {
		return err
	}
	defer out.Close()
	return v.pass(ctx, out, true)
}

// process finds the one that is meant.
func (c *sandboxLogsCommand) process(ctx context.Context, box *sandbox.Client) (*sandbox.ProcessInfo, error) {
	if c.ID != "" {
		p, err := box.Get(ctx, c.ID)
		if sandbox.CodeOf(err) == sandbox.CodeProcessNotFound {
			return nil, &sandbox.Error{Code: sandbox.CodeProcessNotFound, Op: "logs", Message: "there is no process " + printable(c.ID), Err: err,
				Hint: "`tongs sandbox ps -a " + c.Name + "` shows those that are remembered"}
		}
		return p, err
	}
	all, err := box.List(ctx)
	if err != nil {
		return nil, err
	}
	running := slices.DeleteFunc(all, func(p sandbox.ProcessInfo) bool { return !p.Running })
	switch len(running) {
	case 1:
		return &running[0], nil
	case 0:
		return nil, sandbox.Errf(sandbox.CodeProcessNotFound, "logs", "no process runs in "+c.Name, "name one: `tongs sandbox ps -a "+c.Name+"` shows those that are remembered")
	}
	ids := make([]string, 0, 10)
	for _, p := range running[:min(len(running), 10)] {
		ids = append(ids, p.ID)
	}
	return nil, sandbox.Errf(sandbox.CodeInvalidArgument, "logs", fmt.Sprintf("%d processes run in %s", len(running), c.Name), "name one of "+strings.Join(ids, ", "))
}
