package project

import (
	"context"
	"fmt"
)

// takeTree adds everything in the work tree to the index and gives the tree of it.
func (g *git) takeTree(ctx context.Context) (string, error) {
	// It fails with 1 where a name can be in no index (.GIT), and has added the others.
	if _, err := g.run(ctx, nil, maxSmall, "add", "--all", "--ignore-errors", "."); err != nil && exitCode(err) != 1 {
		return "", err
	}
	tree, err := g.line(ctx, "write-tree")
	if err == nil && !validOID.MatchString(tree) {
		err = fmt.Errorf("git gives %.80q for a tree", tree)
	}
	return tree, err
}
