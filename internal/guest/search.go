package guest

import (
	"context"

	"github.com/tongs-dev/tongs/internal/tool"
	"github.com/tongs-dev/tongs/sandbox"
)

// scope makes the path of a search absolute, and says where it works.
func (m *rpcMain) scope(op string, s *sandbox.Scope) (tool.Env, error) {
	cfg := m.s.cfg
	if s.Path == "" {
		s.Path = cfg.Project
	}
	path, err := m.s.engine.path(op, s.Path)
	s.Path = path
	return tool.Env{Directory: cfg.Project, Home: cfg.User.Home, Environ: cfg.baseEnviron(), Processors: m.s.engine.procs.use}, err
}

func (m *rpcMain) glob(ctx context.Context, opts sandbox.GlobOptions) (*sandbox.GlobResult, error) {
	env, err := m.scope("glob", &opts.Scope)
	if err != nil {
		return nil, err
	}
	res, err := tool.Glob(ctx, env, opts)
	return res, renamed("glob", err)
}

func (m *rpcMain) grep(ctx context.Context, pattern string, opts sandbox.GrepOptions) (*sandbox.GrepResult, error) {
	env, err := m.scope("grep", &opts.Scope)
	if err != nil {
		return nil, err
	}
	res, err := tool.Grep(ctx, env, pattern, opts)
	return res, renamed("grep", err)
}

func (m *rpcMain) find(ctx context.Context, query string, opts sandbox.FindOptions) (*sandbox.FindResult, error) {
	env, err := m.scope("find", &opts.Scope)
	if err != nil {
		return nil, err
	}
	res, err := tool.Find(ctx, env, query, opts)
	return res, renamed("find", err)
}
