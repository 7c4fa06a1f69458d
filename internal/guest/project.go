package guest

import (
	"context"

	"github.com/tongs-dev/tongs/internal/tool"
)

// project tells what the system prompt says about the sandbox's project, without
// the instructions if their version is the one that is known.
func (a *rpcAgent) project(ctx context.Context, known *string) (tool.Project, error) {
	version := ""
	if known != nil {
		version = *known
	}
	return tool.DescribeProject(ctx, a.s.runs.env, version)
}
