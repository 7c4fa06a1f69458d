package opencode

import (
	"context"
	"sync"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
)

// fetchTool is the tool that is carried out here, for a sandbox, and not in it.
const fetchTool = "webfetch"

// FetchFunc carries a call of webfetch out for the sandbox of a root session. ask puts a question for
// permission; its error is to be returned as it is. ctx ends when the call is aborted, or nobody waits for
// its result any more: then the plugin may ask again, which is a call of its own.
type FetchFunc func(ctx context.Context, rootSessionID string, args map[string]any, ask func(context.Context, sandbox.AskRequest) error) (*sandbox.ToolResult, error)

// fetches are the calls of webfetch under way.
type fetches struct {
	mu    sync.Mutex
	calls map[string]map[*context.CancelCauseFunc]struct{} // by call id
}

var errAborted = &sandbox.Error{Code: sandbox.CodeAborted, Op: "tool " + fetchTool, Message: "Tool execution aborted"}

// begin gives the context of a call, which ends with ctx, and when the call is aborted.
func (f *fetches) begin(ctx context.Context, callID string) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.calls == nil {
		f.calls = map[string]map[*context.CancelCauseFunc]struct{}{}
	}
	if f.calls[callID] == nil {
		f.calls[callID] = map[*context.CancelCauseFunc]struct{}{}
	}
	f.calls[callID][&cancel] = struct{}{}
	return ctx, func() {
		cancel(nil)
		f.mu.Lock()
		defer f.mu.Unlock()
		if delete(f.calls[callID], &cancel); len(f.calls[callID]) == 0 {
			delete(f.calls, callID)
		}
	}
}

// abort ends the calls with that id, and tells whether there were any.
func (f *fetches) abort(callID string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for cancel := range f.calls[callID] {
		(*cancel)(errAborted)
	}
	return len(f.calls[callID]) > 0
}

// fetch answers what is asked of webfetch, and tells whether it was: a call of it, or an end of one.
func (r *relay) fetch(ctx context.Context, in capnweb.Invocation) (result any, err error, mine bool) {
	if r.bridge.cfg.Fetch == nil || in.Get || len(in.Path) != 1 {
		return nil, nil, false
	}
	switch in.Path[0] {
	case "cancel":
		var callID string
		if in.Args.Decode(0, &callID) != nil || !r.bridge.fetches.abort(r.root+" "+callID) {
			return nil, nil, false
		}
		return true, nil, true
	case "tool":
		var named struct {
			Name string `json:"name"`
		}
		if in.Args.Decode(0, &named) != nil || named.Name != fetchTool {
			return nil, nil, false
		}
		var call sandbox.ToolRequest
		if err := in.Args.Decode(0, &call); err != nil {
			return nil, sandbox.Errf(sandbox.CodeInvalidArgument, "tool", "the call is not one of a tool: "+err.Error(), ""), true
		}
		ctx, end := r.bridge.fetches.begin(ctx, r.root+" "+call.CallID)
		defer end()
		ask := func(ctx context.Context, request sandbox.AskRequest) error {
			if call.Ask == nil {
				return nil
			}
			_, err := capnweb.Call[any](ctx, call.Ask, "", request)
			return err
		}
		done, err := r.bridge.cfg.Fetch(ctx, r.root, call.Args, ask)
		if context.Cause(ctx) == error(errAborted) {
			err = errAborted
		}
		if err != nil {
			return nil, err, true
		}
		return done, nil, true
	}
	return nil, nil, false
}
