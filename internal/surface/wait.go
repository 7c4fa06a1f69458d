package surface

import (
	"context"
	"strings"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
)

type logAnswer struct {
	Line  string   `json:"line"`
	Match []string `json:"match,omitempty"` // what the expression matched, then its groups
	// Offset is where the line begins in the process's log.
	Offset int64 `json:"offset"`
}

// waitForLog waits for a line of the log, printed before or after: one that contains the text, or one
// that {source, flags}, the parts of a RegExp, matches. The expression is RE2's; the flags i, s and m count.
func (h *handle) waitForLog(pattern any, timeout *float64) (*capnweb.Promise, error) {
	const op = "wait for log"
	var want sandbox.LogWait
	switch p := pattern.(type) {
	case string:
		want.Text = p
	case map[string]any:
		source, ok := p["source"].(string)
		if !ok || source == "" {
			return nil, invalid(op, "the pattern has no source", "send {source: re.source, flags: re.flags}")
		}
		want.Pattern = source
		flags, _ := p["flags"].(string)
		if used := strings.Map(func(r rune) rune {
			if strings.ContainsRune("ism", r) {
				return r
			}
			return -1
		}, flags); used != "" {
			want.Pattern = "(?" + used + ")" + source
		}
	default:
		return nil, invalid(op, "the pattern is neither text nor {source, flags}", "a RegExp cannot travel: send {source: re.source, flags: re.flags}")
	}
	limit, err := optional(op, timeout)
	if err != nil {
		return nil, err
	}
	return await(h.b.life, "process.logs", about(h.id), func(ctx context.Context) (*logAnswer, error) {
		wait, cancel := limited(ctx, limit)
		defer cancel()
		m, err := h.b.WaitLog(wait, h.id, want)
		if err != nil {
			return nil, late(ctx, wait, op, err)
		}
		return &logAnswer{m.Line, m.Groups, m.Offset}, nil
	})
}

type portOptions struct {
	Mode    string   `json:"mode"` // http (the default) or tcp
	Path    string   `json:"path"`
	Status  any      `json:"status"` // a number, or {min, max}
	Timeout *float64 `json:"timeout"`
}

// waitForPort waits until the port answers: in HTTP, a GET of path with a status from 200 to 399, or with mode
// tcp by accepting a connection. It fails when the process ends first. The SDK's interval is not
// needed.
func (h *handle) waitForPort(port int, o *portOptions) (*capnweb.Promise, error) {
	const op = "wait for port"
	if o == nil {
		o = &portOptions{}
	}
	var want sandbox.PortWait
	switch o.Mode {
	case "tcp":
	case "", "http":
		if want.Path = o.Path; want.Path == "" {
			want.Path = "/"
		}
		var err error
		if want.MinStatus, want.MaxStatus, err = statusRange(op, o.Status); err != nil {
			return nil, err
		}
	default:
		return nil, invalid(op, "the mode "+clipped(o.Mode)+" is neither http nor tcp", "")
	}
	limit, err := optional(op, o.Timeout)
	if err != nil {
		return nil, err
	}
	return await(h.b.life, "process.port", about(h.id), func(ctx context.Context) (capnweb.UndefinedType, error) {
		wait, cancel := limited(ctx, limit)
		defer cancel()
		_, err := h.b.WaitPort(wait, h.id, port, want)
		return capnweb.Undefined, late(ctx, wait, op, err)
	})
}

func statusRange(op string, v any) (from, to int, err error) {
	number := func(v any) (int, bool) {
		f, ok := v.(float64)
		return int(f), ok && f >= 100 && f <= 599 && f == float64(int(f))
	}
	ok := true
	switch s := v.(type) {
	case nil:
		return 200, 399, nil
	case float64:
		from, ok = number(s)
		to = from
	case map[string]any:
		if from, to = 200, 399; s["min"] != nil {
			from, ok = number(s["min"])
		}
		if s["max"] != nil && ok {
			to, ok = number(s["max"])
		}
	default:
		ok = false
	}
	if !ok || from > to {
		return 0, 0, invalid(op, "the status must be a number from 100 to 599, or {min, max} of such", "")
	}
	return from, to, nil
}

// waitMethods are the contract's waits.
var waitMethods = capnweb.Methods{
	"waitLog":  guarded("process.logs", "processId", processes.waitLog),
	"waitPort": guarded("process.port", "processId", processes.waitPort),
}

func (p processes) waitLog(id string, want sandbox.LogWaitRequest) (*capnweb.Promise, error) {
	w := want.LogWait
	w.Timeout = millis(want.TimeoutMS)
	return await(p.b.life, "process.logs", about(id), func(ctx context.Context) (*sandbox.LogMatch, error) { return p.b.WaitLog(ctx, id, w) })
}

func (p processes) waitPort(id string, port int, want sandbox.PortWaitRequest) (*capnweb.Promise, error) {
	w := want.PortWait
	w.Timeout = millis(want.TimeoutMS)
	return await(p.b.life, "process.port", about(id), func(ctx context.Context) (*sandbox.PortReady, error) { return p.b.WaitPort(ctx, id, port, w) })
}
