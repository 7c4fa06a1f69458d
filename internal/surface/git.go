package surface

import (
	"context"
	"maps"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
	"github.com/tongs-dev/tongs/sandbox/git"
)

type gitOptions struct {
	Branch         string             `json:"branch"`
	TargetDir      string             `json:"targetDir"`
	Depth          int                `json:"depth"`
	Env            map[string]*string `json:"env"`
	CloneTimeoutMs float64            `json:"cloneTimeoutMs"`
	// OnProgress is told {phase, remote, percent, done, total}.
	OnProgress *capnweb.Stub `json:"onProgress"`
}

type gitResult struct {
	Success   bool   `json:"success"`
	RepoURL   string `json:"repoUrl"`
	Branch    string `json:"branch"`
	TargetDir string `json:"targetDir"`
	Commit    string `json:"commit"`
	Timestamp string `json:"timestamp"`
	ExitCode  int    `json:"exitCode"`
}

// gitCheckout clones a repository: whole, or nothing is left. It ends with its caller.
func (b *box) gitCheckout(ctx context.Context, url string, o *gitOptions) (*capnweb.Promise, error) {
	const op = "git checkout"
	if o == nil {
		o = &gitOptions{}
	}
	timeout, err := duration(op, "cloneTimeoutMs", o.CloneTimeoutMs)
	if err != nil {
		return nil, err
	}
	var place sandbox.ProcessSpec
	if err := b.place(ctx, &place, o.Env); err != nil {
		return nil, err
	}
	spec := git.Spec{URL: url, Branch: o.Branch, Dir: o.TargetDir, Depth: o.Depth, Env: maps.Clone(place.Env), Timeout: timeout}
	if spec.Dir != "" {
		spec.Dir = below(place.Dir, spec.Dir)
	}
	told := dup(o.OnProgress)
	p, err := await(b.life, "git.checkout", capnweb.Object{{Key: "repoUrl", Value: clipped(url)}, {Key: "branch", Value: clipped(o.Branch)}}, func(ctx context.Context) (*gitResult, error) {
		defer told.Close()
		calls := window{ctx: ctx}
		if told != nil {
			spec.Progress = func(p git.Progress) { calls.call(told, p) }
		}
		res, err := git.Checkout(ctx, b.Client, spec)
		if err != nil {
			return nil, err
		}
		calls.wait()
		return &gitResult{true, url, res.Branch, res.Dir, res.Commit, timestamp(time.Now()), 0}, nil
	})
	if err != nil {
		told.Close()
	}
	return p, err
}
