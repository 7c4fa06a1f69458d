package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
)

type sandboxPortsCommand struct {
	All    bool   `short:"a" help:"Those of Tongs itself, too, which carry the sandbox's way out."`
	Follow bool   `short:"f" help:"Print what is opened and closed, until Ctrl-C."`
	JSON   bool   `name:"json" help:"Print one JSON array; with --follow JSON objects, one a line."`
	Name   string `arg:"" help:"The sandbox."`
}

// Help is the long help text.
func (sandboxPortsCommand) Help() string {
	return `EXIT STATUS
  0  they are listed
  1  they could not be listed
  2  wrong usage`
}

// Run lists ports.
func (c *sandboxPortsCommand) Run(ctx context.Context, s *streams, g *Globals, a *APIFlags) error {
	if c.Follow {
		return a.with(ctx, g, c.Name, func(box *sandbox.Client) error { return c.follow(ctx, s, box) })
	}
	host, err := a.connect(ctx, g)
	if err != nil {
		return err
	}
	defer host.Close()
	box := host.Object(c.Name)
	defer box.Close()
	list := box.Get("ports")
	defer list.Close()
	all, err := capnweb.Call[[]listedPort](ctx, list, "list")
	if err != nil {
		return sandbox.FromWire("list ports", err)
	}
	all = slices.DeleteFunc(all, func(p listedPort) bool { return c.hidden(p.PortInfo) })
	if c.JSON {
		return json.NewEncoder(s.stdout).Encode(append([]listedPort{}, all...))
	}
	return table(s.stdout, func(w io.Writer) {
		fmt.Fprintln(w, "PORT\tADDRESS\tPID\tPROCESS\tURL")
		for _, p := range all {
			pid := "-"
			if p.PID > 0 {
				pid = strconv.Itoa(p.PID)
			}
			fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\n", p.Port, printable(p.Address), pid, cmp.Or(printable(p.Process), "-"), cmp.Or(printable(p.URL), "-"))
		}
	})
}

// listedPort is a port as the endpoint lists it: with the URL that opens it in a browser, where it has one.
type listedPort struct {
	sandbox.PortInfo
	URL string `json:"url,omitempty"`
}

// hidden reports whether a port is not shown.
func (c *sandboxPortsCommand) hidden(p sandbox.PortInfo) bool { return p.Listener != "" && !c.All }

func (c *sandboxPortsCommand) follow(ctx context.Context, s *streams, box *sandbox.Client) error {
	watch, err := box.WatchPorts(ctx)
	if err != nil {
		return err
	}
	defer watch.Close()
	for {
		e, err := watch.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return nil // told to end
		case err != nil:
			return err
		case c.hidden(e.PortInfo):
		case c.JSON:
			err = json.NewEncoder(s.stdout).Encode(e)
		case e.Kind != sandbox.PortsReady:
			_, err = fmt.Fprintf(s.stdout, "%-5s  %d  %s  %s\n", e.Kind, e.Port, printable(e.Address), printable(e.Process))
		}
		if err != nil {
			return err
		}
	}
}

type sandboxForwardCommand struct {
	Bind string   `default:"127.0.0.1" placeholder:"ADDR" help:"The address of this machine to listen on. Default: ${default}."`
	JSON bool     `name:"json" help:"Print one JSON object for each port, one a line, when it is open."`
	Name string   `arg:"" help:"The sandbox."`
	Port []string `arg:"" help:"[LOCAL:]PORT. LOCAL 0 is a free port; without it the same port is used here."`
}

// Help is the long help text.
func (sandboxForwardCommand) Help() string {
	return `Runs until Ctrl-C. Any protocol over TCP passes, on as many connections as are made (up to 256 at a time). It is
no error when nothing listens in the sandbox yet: a connection is then closed at once. When the host restarts,
forward connects again; the connections that it carried are broken.

  tongs sandbox forward web 3000               http://127.0.0.1:3000 is port 3000 of the sandbox
  tongs sandbox forward web 8080:3000 5432

EXIT STATUS
  0  it was told to end
  1  a port cannot be listened on, or the sandbox was lost
  2  wrong usage`
}

// maxForwarded is how many connections are carried at the same time.
const maxForwarded = 256

// forwarded is one port.
type forwarded struct {
	Local string `json:"local"` // address on this machine
	Port  int    `json:"port"`  // in the sandbox
}

// Run forwards ports.
func (c *sandboxForwardCommand) Run(ctx context.Context, s *streams, g *Globals, a *APIFlags) error {
	var ports []forwarded
	for _, text := range c.Port {
		p, err := c.parse(text)
		if err != nil {
			return usageError{err}
		}
		ports = append(ports, p)
	}
	v := &viewer{s: s, g: g, api: a, name: c.Name}
	if err := v.open(ctx); err != nil {
		return err
	}
	defer v.close()
	var group sync.WaitGroup
	defer group.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	room := make(chan struct{}, maxForwarded)
	for _, p := range ports {
		listener, err := net.Listen("tcp", p.Local)
		if err != nil {
			return &sandbox.Error{Code: sandbox.CodePortInUse, Op: "forward", Message: err.Error(), Err: err, Hint: fmt.Sprintf("choose another port here: LOCAL:%d, or 0:%[1]d for a free one", p.Port)}
		}
		defer listener.Close()
		context.AfterFunc(ctx, func() { listener.Close() })
		p.Local = listener.Addr().String()
		if c.JSON {
			err = json.NewEncoder(s.stdout).Encode(p)
		} else {
			_, err = fmt.Fprintf(s.stdout, "%s → port %d of %s\n", p.Local, p.Port, c.Name)
		}
		if err != nil {
			return err
		}
		group.Go(func() { c.serve(ctx, s, v, listener, p.Port, room) })
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-v.client().Done():
		}
		// The ports of a sandbox that was started anew are as good as those of the one before.
		if err := v.again(ctx); err != nil && !errors.Is(err, errStartedAnew) {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}

// parse reads [LOCAL:]PORT.
func (c *sandboxForwardCommand) parse(text string) (forwarded, error) {
	local, remote, ok := strings.Cut(text, ":")
	if !ok {
		local, remote = text, text
	}
	here, err := strconv.ParseUint(local, 10, 16)
	there, rerr := strconv.ParseUint(remote, 10, 16)
	if err != nil || rerr != nil || there == 0 {
		return forwarded{}, fmt.Errorf("%q is not [LOCAL:]PORT, such as 3000 or 8080:3000", text)
	}
	return forwarded{Local: net.JoinHostPort(c.Bind, strconv.FormatUint(here, 10)), Port: int(there)}, nil
}

// serve carries the connections that come to a listener, until it is closed.
func (c *sandboxForwardCommand) serve(ctx context.Context, s *streams, v *viewer, listener net.Listener, port int, room chan struct{}) {
	var group sync.WaitGroup
	defer group.Wait()
	for {
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			return
		}
		conn, err := listener.Accept()
		if err != nil {
			<-room
			return
		}
		group.Go(func() {
			defer func() { <-room }()
			defer conn.Close()
			inside, err := v.client().DialPort(ctx, port)
			if err != nil {
				if ctx.Err() == nil {
					fmt.Fprintf(s.stderr, "tongs: %v\n", err)
				}
				return
			}
			join(ctx, conn, inside)
		})
	}
}

// join carries bytes both ways until both directions have ended.
func join(ctx context.Context, a, b net.Conn) {
	defer a.Close()
	defer b.Close()
	stop := context.AfterFunc(ctx, func() { a.Close(); b.Close() })
	defer stop()
	var group sync.WaitGroup
	carry := func(to, from net.Conn) {
		_, err := io.Copy(to, from)
		if half, ok := to.(interface{ CloseWrite() error }); ok && err == nil {
			_ = half.CloseWrite() // the other side may be gone
		} else if !errors.Is(err, net.ErrClosed) {
			to.Close()
			from.Close()
		}
	}
	group.Go(func() { carry(a, b) })
	carry(b, a)
	group.Wait()
}
