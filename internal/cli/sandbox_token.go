package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
	"github.com/tongs-dev/tongs/sandbox/remote"
)

type sandboxTokenCommand struct {
	Issue  tokenIssueCommand  `cmd:"" help:"Print a new token that is good for one sandbox."`
	List   tokenListCommand   `cmd:"" help:"List the issued tokens."`
	Revoke tokenRevokeCommand `cmd:"" help:"End a token, and the connections that were opened with it."`
}

// Help is the long help text.
func (sandboxTokenCommand) Help() string {
	return `A token that is good for one sandbox can be given to another program: it can do anything in that sandbox,
cannot destroy it, and learns nothing of the others.

EXIT STATUS
  0  it was done
  1  it could not be done
  2  wrong usage`
}

type tokenIssueCommand struct {
	Name string        `arg:"" help:"The sandbox."`
	For  time.Duration `default:"24h" help:"How long it is good, at most 8784h (366 days)."`
	Note string        `help:"What it is for."`
	JSON bool          `name:"json" help:"Print one JSON object."`
}

// Run issues a token.
func (c *tokenIssueCommand) Run(ctx context.Context, s *streams, g *Globals, a *APIFlags) error {
	host, err := a.connect(ctx, g)
	if err != nil {
		return err
	}
	defer host.Close()
	info, err := host.IssueToken(ctx, remote.TokenOptions{Sandbox: c.Name, Expires: time.Now().Add(c.For), Note: c.Note})
	if err != nil {
		return err
	}
	if c.JSON {
		return json.NewEncoder(s.stdout).Encode(info)
	}
	fmt.Fprintf(s.stderr, "token %s, good until %s; it is shown this once\n", info.ID, info.Expires.Local().Format(time.DateTime))
	_, err = fmt.Fprintln(s.stdout, info.Token)
	return err
}

type tokenListCommand struct {
	JSON bool `name:"json" help:"Print one JSON array."`
}

// Run lists the tokens.
func (c *tokenListCommand) Run(ctx context.Context, s *streams, g *Globals, a *APIFlags) error {
	host, err := a.connect(ctx, g)
	if err != nil {
		return err
	}
	defer host.Close()
	all, err := host.Tokens(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		return json.NewEncoder(s.stdout).Encode(all)
	}
	return table(s.stdout, func(w io.Writer) {
		fmt.Fprintln(w, "ID\tSANDBOX\tCREATED\tEXPIRES\tNOTE")
		for _, t := range all {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", t.ID, t.Sandbox, ago(t.Created), t.Expires.Local().Format(time.DateTime), printable(t.Note))
		}
	})
}

type tokenRevokeCommand struct {
	ID []string `arg:"" help:"Ids of tokens, as list shows them."`
}

// Run revokes tokens.
func (c *tokenRevokeCommand) Run(ctx context.Context, s *streams, g *Globals, a *APIFlags) error {
	host, err := a.connect(ctx, g)
	if err != nil {
		return err
	}
	defer host.Close()
	for _, id := range c.ID {
		there, err := host.RevokeToken(ctx, id)
		if err != nil {
			return err
		}
		if !there {
			return sandbox.Errf(sandbox.CodeInvalidToken, "revoke token", fmt.Sprintf("there is no token %.60q", id), "`tongs sandbox token list` shows their ids")
		}
		fmt.Fprintln(s.stdout, id)
	}
	return nil
}

func isNotFound(err error) bool { return sandbox.CodeOf(err) == sandbox.CodeSandboxNotFound }
