package guest

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
)

// rpcAgent is the restricted object that is relayed to OpenCode's plugin: its tools, and what they work on. What
// else the plugin may ask of a sandbox the host answers.
type rpcAgent struct{ s *server }

var agentClass = capnweb.NewClass[*rpcAgent](capnweb.Methods{
	"tool":    (*rpcAgent).tool,
	"cancel":  (*rpcAgent).cancel,
	"project": (*rpcAgent).project,
}, capnweb.Concurrent())

func (a *rpcAgent) tool(ctx context.Context, req sandbox.ToolRequest) (*sandbox.ToolResult, error) {
	return a.s.runTool(ctx, req)
}

func (a *rpcAgent) cancel(callID string) bool { return a.s.runs.abort(callID) }

// runTool begins a run of a tool, or attaches to it, and waits for its end. When
// the session breaks the run goes on.
func (s *server) runTool(ctx context.Context, req sandbox.ToolRequest) (*sandbox.ToolResult, error) {
	if req.Name == "" {
		return nil, sandbox.Errf(sandbox.CodeInvalidArgument, "tool", "the call names no tool", "set name")
	}
	if req.Args == nil {
		req.Args = map[string]any{}
	}
	args, err := json.Marshal(req.Args)
	if err != nil {
		return nil, sandbox.Errf(sandbox.CodeInvalidArgument, "tool", "the arguments are not plain JSON: "+err.Error(), "")
	}
	x, err := s.runs.attach(req.Name, args, runKey{req.SessionID, req.MessageID, req.CallID}, req.Again)
	if err != nil {
		return nil, err
	}
	detach := x.hooks.attach(&caller{ask: req.Ask, progress: req.Progress, ctx: ctx})
	defer detach()
	select {
	case <-x.done:
		return x.result, x.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// valid is text that can travel.
func valid(b []byte) string { return strings.ToValidUTF8(string(b), "\uFFFD") }
