package opencode

import (
	"context"
	"net"

	"github.com/tongs-dev/tongs/sandbox"
)

// Machine is what a [Host] needs of the sandbox in which OpenCode runs. A
// *sandbox.Client is one.
type Machine interface {
	Start(ctx context.Context, spec sandbox.ProcessSpec) (*sandbox.ProcessInfo, error)
	Get(ctx context.Context, id string) (*sandbox.ProcessInfo, error)
	Wait(ctx context.Context, id string) (*sandbox.ProcessInfo, error)
	Signal(ctx context.Context, id, signal string) error
	Remove(ctx context.Context, id string) error
	Output(ctx context.Context, id string, opts sandbox.OutputOptions) (sandbox.Output, error)
	WriteFile(ctx context.Context, path string, data []byte, opts sandbox.WriteOptions) (*sandbox.FileInfo, error)
	Mkdir(ctx context.Context, path string, parents bool) error
	Stat(ctx context.Context, path string) (*sandbox.FileInfo, error)
	Dial(ctx context.Context, network, address string) (net.Conn, error)
}

var _ Machine = (*sandbox.Client)(nil)
