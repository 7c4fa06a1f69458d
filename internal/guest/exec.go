package guest

import (
	"context"
	"time"

	"github.com/tongs-dev/tongs/internal/tool"
	"github.com/tongs-dev/tongs/sandbox"
)

// maxInline is the most output that comes back inside the answer to exec, and
// maxInput the most input that goes inside the question.
const (
	maxInline = sandbox.InlineBytes
	maxInput  = 1 << 20
)

// exec runs a command and answers when it has ended, or when it has written more
// than fits into an answer: then the caller reads the rest from the log. The
// command goes on whatever becomes of the caller.
func (g *engine) exec(ctx context.Context, req sandbox.StartRequest) (*process, *execOutput, error) {
	if len(req.Input) > maxInput {
		return nil, nil, sandbox.Errf(sandbox.CodeInvalidArgument, "exec", "the input is too long for one message", "write it to the command's stdin")
	}
	inline := req.Inline
	if inline <= 0 || inline > maxInline {
		inline = maxInline
	}
	spec := req.Spec
	spec.Stdin = spec.Stdin || len(req.Input) > 0
	if spec.LogBytes > 0 {
		inline = min(inline, spec.LogBytes/2)
	}
	p, err := g.start(spec, startOptions{timeout: time.Duration(req.TimeoutMS) * time.Millisecond, mode: sandbox.Lossless})
	if err != nil {
		return nil, nil, err
	}
	if len(req.Input) > 0 && p.stdin != nil {
		g.wg.Go(func() {
			// The command may end, or close its input, before it has read all.
			_, _ = p.stdin.f.Write(req.Input)
			if !req.Spec.Stdin {
				p.stdin.close()
			}
		})
	}
	for {
		_, end, ended := p.log.span()
		if ended {
			return p, p.collect(), nil
		}
		if end > inline {
			return p, nil, nil
		}
		select {
		case <-p.log.waitChange(end):
		case <-ctx.Done():
			return p, nil, ctx.Err()
		}
	}
}

type execOutput struct{ stdout, stderr []byte }

// collect takes all that the log of an ended process holds.
func (p *process) collect() *execOutput {
	var o execOutput
	var off int64
	for {
		v := p.log.read(off)
		off += v.dropped + int64(len(v.data))
		if len(v.data) == 0 {
			return &o
		}
		if v.stream == sandbox.Stderr {
			o.stderr = append(o.stderr, v.data...)
		} else {
			o.stdout = append(o.stdout, v.data...)
		}
		p.log.release(v)
	}
}

// shell runs commands for the tools.
type shell struct{ g *engine }

var _ tool.Shell = shell{}

// stuck is how long a killed command may take to be gone: one that hangs in the
// kernel is left behind.
const stuck = killGrace + 3*time.Second

// Run implements tool.Shell.
func (s shell) Run(ctx context.Context, cmd tool.Command, onOutput func([]byte)) (tool.Exit, error) {
	if err := ctx.Err(); err != nil {
		return tool.Exit{}, err
	}
	env := cmd.Env
	if env == nil {
		env = s.g.cfg.baseEnviron()
	}
	p, err := s.g.start(sandbox.ProcessSpec{Argv: cmd.Argv, Dir: cmd.Dir, Merge: true, LogBytes: 256 << 10},
		startOptions{timeout: cmd.Timeout, mode: sandbox.Lossless, env: env})
	if err != nil {
		return tool.Exit{}, err
	}
	defer s.g.remove(p)
	p.log.attach()
	defer p.log.detach()
	abort := ctx.Done()
	var giveUp <-chan time.Time
	var off int64
	for {
		v := p.log.read(off)
		if len(v.data) > 0 {
			onOutput(v.data)
		}
		off += v.dropped + int64(len(v.data))
		p.log.release(v)
		p.log.confirm(off)
		if v.ended {
			break
		}
		if len(v.data) > 0 {
			continue
		}
		if cmd.Timeout > 0 && giveUp == nil {
			t := time.NewTimer(cmd.Timeout + stuck)
			defer t.Stop()
			giveUp = t.C
		}
		select {
		case <-p.log.waitChange(off):
		case <-abort:
			abort = nil
			p.kill(false)
			t := time.NewTimer(stuck)
			defer t.Stop()
			giveUp = t.C
		case <-giveUp:
			p.kill(false)
			return tool.Exit{TimedOut: ctx.Err() == nil}, ctx.Err()
		}
	}
	e := *p.info().Exit
	x := tool.Exit{Signal: e.Signal, TimedOut: e.TimedOut}
	if e.Signal == "" {
		x.Code = &e.Code
	}
	if cmd.Notices {
		x.Notices = s.g.notices()
	}
	return x, ctx.Err()
}
