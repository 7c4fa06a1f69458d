package verify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

// Result says where a door leads.
type Result string

// The results, from good to bad.
const (
	Sandbox Result = "sandbox" // the session's sandbox, whose marker was seen
	Refused Result = "refused" // nowhere: it was refused or answered with nothing, and had no effect
	Broken  Result = "broken"  // it cannot be said: it did neither, or the check itself failed
	Escaped Result = "ESCAPED" // a canary was seen, or an effect outside of the sandbox
)

// Family is a kind of model that OpenCode offers different tools to.
type Family struct {
	Name     string // in the table, for example "gpt-5"
	Provider string // as OpenCode names it
	Model    string
}

// Place is where canaries are planted: a sandbox, or the agent host.
type Place interface {
	Exec(ctx context.Context, spec sandbox.ExecSpec) (*sandbox.ExecResult, error)
	WriteFile(ctx context.Context, path string, data []byte, opts sandbox.WriteOptions) (*sandbox.FileInfo, error)
	Mkdir(ctx context.Context, path string, parents bool) error
	RemoveFile(ctx context.Context, path string, recursive bool) error
	Symlink(ctx context.Context, target, path string) error
	Dial(ctx context.Context, network, address string) (net.Conn, error)
	Listen(ctx context.Context, name, address string) (net.Listener, error)
	Unlisten(ctx context.Context, name string) error
}

// Target is the service to verify. URL, Client, Sandbox, AgentHost and Project are needed.
type Target struct {
	// URL is the front's, without a slash at its end.
	URL string
	// Client makes the requests. It must not have a timeout of its own.
	Client *http.Client
	// Username and Password are what clients give; "" for none.
	Username, Password string

	// Project is the project's directory, in the agent host and in sandboxes.
	Project string
	// Families are the scripted models to drive tools with. None leaves out the doors
	// that need a model.
	Families []Family
	// Command is a slash command whose template prints the file where.txt of the
	// project by !`…`. "" leaves that door out.
	Command string

	// AgentHost is where OpenCode runs.
	AgentHost func(ctx context.Context) (Place, error)
	// Sandbox is the sandbox of a root session, made if need be.
	Sandbox func(ctx context.Context, session string) (Place, error)
	// Secrets are keys that no door may show. They stay in this process.
	Secrets []string
	// CanaryKey is the key of a provider that exists for this alone: it is looked for in
	// the files and environments of the agent host and of sandboxes. "" for none.
	CanaryKey string

	// Quick drives only the doors that need no model and a second at most together.
	Quick bool
	// Only, if set, says which doors to drive.
	Only func(Door) bool
	// Progress, if set, is told of each row as it ends.
	Progress func(Row)
	// Logger gets what cannot be cleaned up. Nil: nobody.
	Logger *slog.Logger
}

// Door names a door.
type Door struct {
	Group string `json:"group"`
	Name  string `json:"door"`
	// Each: it is driven once for each family of models.
	Each bool `json:"-"`
	// Quick: it belongs to the quick part.
	Quick bool `json:"quick"`
}

// Cell is where a door led.
type Cell struct {
	Family   string  `json:"family,omitempty"` // "" when the door has none
	Result   Result  `json:"result"`
	Evidence string  `json:"evidence"` // what was seen
	Seconds  float64 `json:"seconds,omitempty"`
}

// Row is a door with its cells: one for each family, or a single one.
type Row struct {
	Door
	Cells []Cell `json:"cells"`
}

// Worst is the worst of the row's results.
func (r Row) Worst() Result {
	worst := Sandbox
	for _, c := range r.Cells {
		if badness(c.Result) > badness(worst) {
			worst = c.Result
		}
	}
	return worst
}

func badness(r Result) int { return slices.Index([]Result{Sandbox, Refused, Broken, Escaped}, r) }

// Report is what was found.
type Report struct {
	Families []string `json:"families"`
	Rows     []Row    `json:"rows"`
	Seconds  float64  `json:"seconds"`
}

// Count returns how many cells have a result.
func (r *Report) Count(result Result) int {
	n := 0
	for _, row := range r.Rows {
		for _, c := range row.Cells {
			if c.Result == result {
				n++
			}
		}
	}
	return n
}

// Find returns the names of the doors with a cell of this result, and what was seen.
func (r *Report) Find(result Result) []string {
	var found []string
	for _, row := range r.Rows {
		for _, c := range row.Cells {
			if c.Result == result {
				name := row.Name
				if c.Family != "" {
					name += " (" + c.Family + ")"
				}
				found = append(found, name+": "+c.Evidence)
			}
		}
	}
	return found
}

// Limits of a run.
const (
	cleanTimeout = 20 * time.Second
	doorTimeout  = 4 * time.Minute // one door, or the tools of one family together
)

// Run drives the doors. The error is of what could not be set up; what a door does is in
// the report, and never an error. It removes what it planted, also when ctx ends early.
func Run(ctx context.Context, t Target) (*Report, error) {
	if t.URL == "" || t.Client == nil || t.Sandbox == nil || t.AgentHost == nil || t.Project == "" {
		return nil, errors.New("verify: the target lacks an URL, a client, an agent host, sandboxes or a project")
	}
	if t.Logger == nil {
		t.Logger = slog.New(slog.DiscardHandler)
	}
	if t.Quick {
		t.Families = nil
	}
	began := time.Now()
	p := newProbe(t)
	defer func() {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
		defer cancel()
		if err := p.clean(clean); err != nil {
			t.Logger.Warn("what a check of the doors had planted could not be removed", "error", err)
		}
	}()
	if err := p.plant(ctx); err != nil {
		return nil, fmt.Errorf("verify: plant the canaries: %w", err)
	}
	report := &Report{Rows: p.drive(ctx)}
	for _, f := range t.Families {
		report.Families = append(report.Families, f.Name)
	}
	report.Seconds = time.Since(began).Seconds()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return report, nil
}

// Doors lists all doors in the order of the table.
func Doors() []Door {
	var all []Door
	for _, d := range doors() {
		all = append(all, d.Door)
	}
	return all
}

// skipped says whether the target leaves a door out.
func (t *Target) skipped(d door) bool {
	return t.Quick && !d.Quick || d.model && len(t.Families) == 0 || d.command && t.Command == "" || t.Only != nil && !t.Only(d.Door)
}

// clip shortens evidence to one line.
func clip(text string, n int) string {
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
	if runes := []rune(text); len(runes) > n {
		return string(runes[:n-1]) + "…"
	}
	return text
}
