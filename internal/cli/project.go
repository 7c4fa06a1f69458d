package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/fleet"
	"github.com/tongs-dev/tongs/internal/idmap"
	"github.com/tongs-dev/tongs/internal/image"
	"github.com/tongs-dev/tongs/internal/project"
	"github.com/tongs-dev/tongs/sandbox"
)

// collectTimeout bounds one removal of what no sandbox has any more.
const collectTimeout = 5 * time.Minute

// projects puts the files of projects into the sandboxes of a running service.
type projects struct {
	store  *project.Store
	opts   project.Options // of sessions; Dir is "" when they have no project
	driver driver.Driver
	log    *slog.Logger
	gone   chan struct{} // a sandbox was destroyed

	mu     sync.Mutex
	latest *project.Layer // that the next session has, unless the project changes; held, so that it is there then
	closed bool
}

func newProjects(cfg *Config, d driver.Driver, log *slog.Logger) *projects {
	return &projects{
		store: project.Open(cfg.Home), opts: project.Options{Dir: cfg.Project, Ignored: cfg.ProjectIgnored}, driver: d, log: log,
		gone: make(chan struct{}, 1),
	}
}

// takeProject takes the configured project for the first time, so that what is wrong with it ends the start and no session
// waits for it.
func (s *service) takeProject(ctx context.Context, root image.Root, status io.Writer) error {
	p := s.projects
	if p.opts.Dir == "" {
		return nil
	}
	p.opts.Map = root.Map
	first := p.opts
	show := newCopying(status)
	first.Progress = show.report
	layer, err := p.store.Take(ctx, first)
	show.end()
	if err != nil {
		return err
	}
	s.notes = append(s.notes, "project: "+describeLayer(layer))
	for _, note := range layer.Notes {
		s.notes = append(s.notes, "  "+printable(note))
	}
	p.keep(layer)
	return nil
}

// describeLayer says in a line what was taken.
func describeLayer(l *project.Layer) string {
	at := "no repository"
	switch {
	case l.Branch != "":
		at = "branch " + l.Branch
	case l.Commit != "":
		at = "commit " + l.Commit[:12]
	}
	return printable(fmt.Sprintf("%s (%s; %d files, %s)", l.Dir, at, l.Files, size(l.Bytes)))
}

// keep holds a layer instead of the one before.
func (p *projects) keep(l *project.Layer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.latest != nil {
		p.latest.Close()
	}
	if p.latest = l; p.closed {
		l.Close()
	}
}

// prepareSession gives what completes the recipes of sessions' sandboxes; nil when they have no project.
func (p *projects) prepareSession() fleet.Preparation {
	if p.opts.Dir == "" {
		return nil
	}
	return func(ctx context.Context, spec *driver.Spec) (func(), error) {
		began := time.Now()
		layer, err := p.store.Take(ctx, p.opts)
		if err != nil {
			return nil, err
		}
		p.log.Debug("project looked at", "layer", layer.ID, "milliseconds", time.Since(began).Milliseconds())
		if layer.Created.After(began) {
			for _, note := range layer.Notes {
				p.log.Warn("project", "note", note)
			}
		}
		apply(spec, layer)
		own, err := p.store.Get(layer.ID)
		if err != nil {
			layer.Close()
			return nil, err
		}
		p.keep(layer)
		return own.Close, nil
	}
}

// prepare gives what completes the recipe of a sandbox that starts with the files of the id.
func (p *projects) prepare(id string) fleet.Preparation {
	return func(_ context.Context, spec *driver.Spec) (func(), error) {
		layer, err := p.store.Get(id)
		if err != nil {
			return nil, err
		}
		if !layer.Map.Equal(spec.Image.Map) {
			layer.Close()
			return nil, sandbox.Errf(sandbox.CodeInvalidArgument, "create sandbox", "the files of the project have other ids than the image", "run this as the user who runs `tongs up`")
		}
		apply(spec, layer)
		return layer.Close, nil
	}
}

// apply puts a layer on top of a recipe's image.
func apply(spec *driver.Spec, layer *project.Layer) {
	spec.Image.Lower = slices.Concat([]string{layer.Root()}, spec.Image.Lower)
	spec.Image.ID += "+" + layer.ID
	if spec.Labels == nil {
		spec.Labels = make(map[string]string)
	}
	spec.Labels[fleet.LabelProject] = layer.ID
}

// removed is told that there is one sandbox less.
func (p *projects) removed() {
	select {
	case p.gone <- struct{}{}:
	default: // it is known already
	}
}

// collectRetry is after how long what failed is tried again, and collectRetries how often.
const (
	collectRetry   = time.Second
	collectRetries = 5
)

// collect removes what no sandbox has any more, now and whenever one was destroyed, until ctx ends.
func (p *projects) collect(ctx context.Context) {
	failed := 0
	for {
		var again <-chan time.Time
		err := p.sweep(ctx)
		switch {
		case err == nil || ctx.Err() != nil:
			failed = 0
		case failed < collectRetries: // a sandbox that is on its way out right now has no record that can be read
			failed++
			again = time.After(collectRetry)
		default:
			failed = 0
			p.log.Warn("files of projects that no sandbox has could not be removed", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-p.gone:
		case <-again:
		}
	}
}

func (p *projects) sweep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, collectTimeout)
	defer cancel()
	n, err := p.store.GC(ctx, func(ctx context.Context) (map[string]bool, error) {
		all, err := p.driver.List(ctx)
		used := make(map[string]bool, len(all))
		for _, status := range all {
			if status.Damaged != "" && status.Labels == nil {
				return nil, errors.New("sandbox " + status.ID + " does not say what it has: " + status.Damaged)
			}
			used[status.Labels[fleet.LabelProject]] = true
		}
		return used, err
	})
	if n > 0 {
		p.log.Info("files of projects that no sandbox has were removed", "count", n)
	}
	return err
}

// close lets go of everything. It can be called at any stage.
func (p *projects) close() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.latest != nil {
		p.latest.Close()
		p.latest = nil
	}
}

// takeFor takes a project into the home for a sandbox that is about to be made.
func takeFor(ctx context.Context, s *streams, g *Globals, dir string, ignored bool) (*project.Layer, error) {
	cfg, err := g.load()
	if err != nil {
		return nil, err
	}
	show := newCopying(s.stderr)
	opts := project.Options{Dir: dir, Ignored: ignored, Progress: show.report}
	opts.Map, _ = idmap.Find() // as the image of the service has it
	layer, err := project.Open(cfg.Home).Take(ctx, opts)
	if sandbox.CodeOf(err) == sandbox.CodeMachineNotSupported && !opts.Map.None() {
		opts.Map = idmap.Map{}
		layer, err = project.Open(cfg.Home).Take(ctx, opts)
	}
	show.end()
	if err != nil {
		return nil, err
	}
	for _, note := range layer.Notes {
		fmt.Fprintln(s.stderr, "tongs: project:", printable(note))
	}
	return layer, nil
}

// copying shows how far the copying of a large project is.
type copying struct {
	w     io.Writer
	bar   bool
	began time.Time
	shown time.Time
}

// copyingPatience is how long copying takes before anything is said about it; beyond a terminal, a line is
// written this often.
const copyingPatience = 2 * time.Second

func newCopying(w io.Writer) *copying {
	if w == nil {
		w = io.Discard
	}
	return &copying{w: w, bar: isTerminal(w), began: time.Now()}
}

func (c *copying) report(now project.Progress) {
	if time.Since(c.began) < copyingPatience || !c.bar && time.Since(c.shown) < 5*copyingPatience {
		return
	}
	c.shown = time.Now()
	text := fmt.Sprintf("copying the project: %d of %d files, %s of %s", now.Files, now.AllFiles, size(now.Bytes), size(now.AllBytes))
	if c.bar {
		fmt.Fprintf(c.w, "\r\x1b[K%s", text)
	} else {
		fmt.Fprintln(c.w, text)
	}
}

func (c *copying) end() {
	if c.bar && !c.shown.IsZero() {
		fmt.Fprint(c.w, "\r\x1b[K")
	}
}
