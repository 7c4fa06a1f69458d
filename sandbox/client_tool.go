package sandbox

import (
	"context"

	"github.com/tongs-dev/tongs/capnweb"
)

func (c *Client) RunTool(ctx context.Context, t ToolCall, hooks ToolHooks) (*ToolResult, error) {
	req := ToolRequest{Name: t.Name, Args: t.Args, CallID: t.CallID, SessionID: t.SessionID, MessageID: t.MessageID, Agent: t.Agent, Again: t.Again}
	if hooks.Ask != nil {
		req.Ask = capnweb.NewStub(capnweb.Func(hooks.Ask, capnweb.Concurrent()))
		defer req.Ask.Close()
	}
	if hooks.Progress != nil {
		req.Progress = capnweb.NewStub(capnweb.Func(func(r ProgressReport) { hooks.Progress(r.Title, r.Metadata) }))
		defer req.Progress.Close()
	}
	return call[*ToolResult](ctx, c, "tool", "tool", req)
}

func (c *Client) CancelTool(ctx context.Context, callID string) (bool, error) {
	return call[bool](ctx, c, "cancel tool", "cancel", callID)
}
