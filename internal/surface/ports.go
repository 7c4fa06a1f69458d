package surface

import (
	"context"
	"errors"
	"io"
	"net"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
)

// ports is the contract's sandbox.Ports, without listening.
type ports struct{ part }

var portMethods = capnweb.Methods{
	"list":  guarded("port.list", "", ports.list),
	"watch": guarded("port.list", "", ports.watch),
	"dial":  guarded("port.connect", "", ports.dial),
}

var portsClass = capnweb.NewClass[ports](portMethods, capnweb.Concurrent())

// listedPort is a listening socket, with the URL under which it can be opened, if it has one.
type listedPort struct {
	sandbox.PortInfo
	URL string `json:"url,omitempty"`
}

func (p ports) list(ctx context.Context) ([]listedPort, error) {
	all, err := p.b.ListPorts(ctx)
	listed := make([]listedPort, len(all))
	for i, port := range all {
		if listed[i].PortInfo = port; p.b.opts.Previews != nil && port.Listener == "" {
			listed[i].URL = p.b.opts.Previews.URL(port.Port)
		}
	}
	return listed, err
}

// watch gives a stream of sandbox.PortEvent, and of {type: "alive"}.
func (p ports) watch(ctx context.Context) (*capnweb.ReadableStream, error) {
	w, err := p.b.WatchPorts(ctx)
	if err != nil {
		return nil, err
	}
	return objectStream("port.list", func(ctx context.Context) (any, error) {
		e, err := w.Next(ctx)
		if errors.Is(err, net.ErrClosed) {
			err = io.EOF
		}
		return e, err
	}, func() { _ = w.Close() }), nil
}

// dial connects to a port, or to a unix socket by its path, and gives {readable, writable}. Closing the one
// closes that direction only.
func (p ports) dial(ctx context.Context, address any) (capnweb.Object, error) {
	var conn net.Conn
	var err error
	switch a := address.(type) {
	case float64:
		conn, err = p.b.DialPort(ctx, int(a))
	case string:
		network := "tcp"
		if len(a) > 0 && a[0] == '/' {
			network = "unix"
		}
		conn, err = p.b.Dial(ctx, network, a)
	default:
		err = invalid("dial", "the address is neither a port nor text", "")
	}
	if err != nil {
		return nil, err
	}
	d := &duplex{conn: conn, open: 2}
	return capnweb.Object{
		{Key: "readable", Value: capnweb.NewReader((*duplexReader)(d))},
		{Key: "writable", Value: capnweb.NewWriter((*duplexWriter)(d))},
	}, nil
}
