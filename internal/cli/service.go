package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tongs-dev/tongs/internal/doors"
	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/egress"
	"github.com/tongs-dev/tongs/internal/fleet"
	"github.com/tongs-dev/tongs/internal/gateway"
	"github.com/tongs-dev/tongs/internal/image"
	"github.com/tongs-dev/tongs/internal/modelproxy"
	"github.com/tongs-dev/tongs/internal/opencode"
	"github.com/tongs-dev/tongs/internal/preview"
	"github.com/tongs-dev/tongs/internal/scriptmodel"
	"github.com/tongs-dev/tongs/internal/surface"
	"github.com/tongs-dev/tongs/internal/undo"
	"github.com/tongs-dev/tongs/sandbox"
)

const (
	// projectDir is the directory of every session, in the agent host and in the sandboxes.
	projectDir = "/home/user/project"
	// headerTimeout bounds how long a request's headers may take, on every server of ours.
	headerTimeout = 10 * time.Second
	// stopTimeout bounds the orderly end of everything; what is not done then is left behind, named.
	stopTimeout = 40 * time.Second
)

// service is everything that `tongs up` runs, in one value.
type service struct {
	cfg       *Config
	log       *slog.Logger
	home      *home
	driver    driver.Driver
	fleet     *fleet.Fleet
	scripted  *http.Server
	agent     *agentHost
	doors     *doors.Doors
	undo      *undo.Manager
	egress    *egress.Keeper // nil when sandboxes have no network
	projects  *projects
	host      *opencode.Host
	api       *endpoint // nil when there is none
	front     *http.Server
	preview   *preview.Handler
	states    surface.States // of sandboxes, for those who use them as programs
	url       string         // of the front
	images    images         // what sandboxes are made from
	failed    chan error     // what ends the service from inside
	canaryKey string         // of the scripted models' provider, when there is a check
	notes     []string       // for the person who starts it, one line each
	took      time.Duration  // from start to ready

	watching    sync.WaitGroup // the watch over sessions, and what it has started
	stopWatcher context.CancelFunc
}

// errInterrupted is the end of a start that was told to end.
var errInterrupted = errors.New("interrupted while starting; what had been started was ended, files are kept")

// startOptions are what a command adds to the configuration.
type startOptions struct {
	obtainHome string                   // where OpenCode is kept; default the home
	onCall     func(opencode.CallEvent) // told of each tool call
	status     io.Writer                // progress for people
	check      *check                   // more for the scripted model to do than `tongs up` offers
	weak       weakness                 // tests alone
}

// start brings everything up and returns once the front answers. After an error nothing of it runs.
func start(ctx context.Context, cfg *Config, log *slog.Logger, opts startOptions) (_ *service, err error) {
	began := time.Now()
	s := &service{cfg: cfg, log: log, failed: make(chan error, 1)}
	defer func() {
		if err != nil {
			if ctx.Err() != nil {
				err = errInterrupted
			}
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
			defer cancel()
			err = errors.Join(err, s.stop(stop))
		}
	}()
	if s.home, err = openHome(cfg.Home); err != nil {
		return nil, err
	}
	if err = s.home.acquire(); err != nil {
		return nil, err
	}
	// The address is taken first: everything after it takes seconds.
	listener, err := listen(cfg.Listen)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			listener.Close()
		}
	}()
	if s.api, err = listenAPI(cfg); err != nil {
		return nil, err
	}
	configured, err := s.configure(opts.check)
	if err != nil {
		return nil, err
	}
	if err = needDriver(cfg, cfg.Driver); err != nil {
		return nil, err
	}
	if s.driver, err = newDriver(cfg, log); err != nil {
		return nil, err
	}

	s.projects = newProjects(cfg, s.driver, log.With("from", "project"))
	var binary opencode.Binary
	var root, sessionRoot image.Root
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		binary, err = obtain(groupCtx, cfg, opts, log)
		return err
	})
	group.Go(func() (err error) {
		if err := s.recover(groupCtx); err != nil {
			return err
		}
		if root, sessionRoot, err = s.openRoots(groupCtx, opts); err != nil {
			return err
		}
		return s.takeProject(groupCtx, sessionRoot, opts.status)
	})
	if err = group.Wait(); err != nil {
		return nil, err
	}

	recipe := driver.Spec{Image: sessionRoot, Limits: cfg.Sandbox.driver(), Lease: cfg.Lease.std(), Root: cfg.Sandbox.Root, Driver: cfg.Driver}
	if s.egress, err = cfg.network(&recipe, os.LookupEnv, log.With("from", "egress")); err != nil {
		return nil, err
	}
	config := fleet.Config{Driver: s.driver, Logger: log, Recipe: recipe, Image: cfg.imageName(), Reserved: []string{agentHostName}}
	config.Prepare = s.projects.prepareSession()
	config.Ended = func(id string) {
		if s.egress != nil {
			s.egress.End(id)
		}
		s.projects.removed()
	}
	if s.egress != nil {
		config.Reached = func(ctx context.Context, box fleet.Sandbox) error { return s.egress.Serve(ctx, box.ID, box.Client) }
	}
	s.fleet = fleet.New(config)
	found, err := s.fleet.Recover(ctx)
	if err != nil {
		return nil, err
	}
	if found > 0 {
		log.Info("sandboxes of an earlier run found", "count", found)
	}
	if s.preview, err = s.newPreview(listener.Addr().String()); err != nil {
		return nil, err
	}
	if err = s.startOpenCode(ctx, configured, binary, root, opts); err != nil {
		return nil, err
	}
	s.watch()
	if err = s.openAPI(); err != nil {
		return nil, err
	}
	handler, err := s.handler(listener.Addr().String(), opts.weak)
	if err != nil {
		return nil, err
	}
	if err = s.selfCheck(ctx, handler, opts); err != nil {
		return nil, err
	}
	s.open(listener, handler)
	s.took = time.Since(began)
	return s, nil
}

// detach unmounts the sandboxes' own storage, if the driver has one and nothing uses it any more.
func detach(ctx context.Context, d driver.Driver) error {
	if d, ok := d.(interface{ Detach(context.Context) error }); ok {
		return d.Detach(ctx)
	}
	return nil
}

// recover clears away what an earlier process left half done.
func (s *service) recover(ctx context.Context) error {
	removed, err := s.driver.Recover(ctx)
	for _, what := range removed {
		s.log.Info("left over from an earlier run and removed", "what", what)
	}
	return err
}

// obtain returns the OpenCode to run.
func obtain(ctx context.Context, cfg *Config, opts startOptions, log *slog.Logger) (opencode.Binary, error) {
	home := cfg.Home
	if opts.obtainHome != "" {
		home = opts.obtainHome
	}
	if cfg.OpenCodeBinary != "" {
		own, err := opencode.UseBinary(ctx, cfg.OpenCodeBinary)
		if err != nil {
			return opencode.Binary{}, err
		}
		own.Path, err = stage(home, own.Path)
		return own, err
	}
	show := newProgress(opts.status)
	return opencode.Obtain(ctx, opencode.ObtainOptions{Home: home, Progress: show.report, Logger: log})
}

// listen takes the front's address.
func listen(address string) (net.Listener, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, &sandbox.Error{Code: sandbox.CodePortInUse, Op: "listen on " + address, Message: err.Error(), Err: err,
			Hint: "stop what uses it (perhaps another tongs: `tongs down`), or choose another address with --listen"}
	}
	return listener, nil
}

// startOpenCode makes the agent host and brings OpenCode up in it, checked.
func (s *service) startOpenCode(ctx context.Context, configured *opencode.Configured, binary opencode.Binary, root image.Root, opts startOptions) error {
	models, err := modelproxy.New(modelproxy.Config{Providers: configured.Providers, Logger: s.log.With("from", "models")})
	if err != nil {
		return err
	}
	spec, err := agentHostSpec(filepath.Dir(filepath.Dir(binary.Path)), root, s.cfg.AgentHost, s.cfg.Lease)
	if err != nil {
		return err
	}
	opts.weak.spec(&spec)
	s.doors = doors.New(doors.Config{
		Root:    func(ctx context.Context, id string) (string, error) { return s.host.RootSession(ctx, id) },
		Sandbox: s.sessionBox, Directory: projectDir, Logger: s.log.With("from", "doors"),
	})
	s.undo = s.newUndo()
	s.agent = &agentHost{fleet: s.fleet, spec: spec, models: models, shells: s.doors.ServeShells, log: s.log.With("from", "models")}
	s.host, err = opencode.NewHost(opencode.HostConfig{
		Machine: opts.weak.machines(s.agent.machine), Content: configured.Content, Sandboxes: s.fleet, Surface: s.agentSurface, Fetch: s.webfetch, Models: configured.Models, OnCall: opts.onCall, Step: s.step,
		Binary:  agentHostOpenCode + "/" + filepath.Base(filepath.Dir(binary.Path)) + "/" + filepath.Base(binary.Path),
		Project: projectDir, Logger: s.log,
	})
	if err != nil {
		return err
	}
	_, err = s.host.Start(ctx)
	return err
}

// configure makes OpenCode's configuration, and notes for the person who starts it what was refused.
func (s *service) configure(check *check) (*opencode.Configured, error) {
	options := opencode.ConfigureOptions{File: s.cfg.OpenCodeConfig, Keys: s.cfg.Keys, Shell: agentHostShell}
	if s.cfg.Scripted {
		url, err := s.startScripted()
		if err != nil {
			return nil, err
		}
		options.Scripted = url + "/v1"
	}
	s.canaryKey = check.apply(&options)
	configured, err := opencode.Configure(options)
	if err != nil {
		return nil, usageError{err}
	}
	for _, refusal := range configured.Refused {
		s.notes = append(s.notes, "not used: "+refusal.String())
	}
	var names []string
	for _, provider := range configured.Providers {
		names = append(names, provider.ID)
	}
	s.notes = append(s.notes, "models of: "+strings.Join(names, ", "))
	return configured, nil
}

// startScripted serves the scripted model on a port of this machine's loopback, for the model proxy.
func (s *service) startScripted() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	s.scripted = &http.Server{Handler: scriptmodel.New(scriptmodel.Options{Logger: s.log.With("from", "scripted model")}), ReadHeaderTimeout: headerTimeout}
	go s.scripted.Serve(listener) // ends with Close
	return "http://" + listener.Addr().String(), nil
}

// watch makes a sandbox for each new session before its first tool call asks for it, and removes it
// when the session is deleted.
func (s *service) watch() {
	ctx, cancel := context.WithCancel(context.Background())
	s.stopWatcher = cancel
	each := func(do func(ctx context.Context, root string) error) func(string) {
		return func(root string) {
			s.watching.Go(func() {
				if err := do(ctx, root); err != nil && ctx.Err() == nil {
					s.log.Warn("a session's sandbox could not be prepared or removed", "session", root, "error", err)
				}
			})
		}
	}
	watcher := opencode.RootWatcher{
		Created: each(func(ctx context.Context, root string) error { _, err := s.fleet.Session(ctx, root); return err }),
		Deleted: each(s.forget),
		Step:    s.undo.Prepare,
	}
	s.watching.Go(func() { s.host.WatchRoots(ctx, watcher) })
	s.watching.Go(func() { s.projects.collect(ctx) })
}

// forget removes a deleted session's sandbox, and the URLs of its ports.
func (s *service) forget(ctx context.Context, root string) error {
	id, _ := s.fleet.ID(root)
	s.undo.Forget(root)
	err := s.fleet.Forget(ctx, root)
	s.forgotten(fleet.Entry{ID: id, Session: root})
	return err
}

// handler makes the front that is to be served on an address.
func (s *service) handler(address string, weak weakness) (http.Handler, error) {
	config := gateway.Config{
		Upstream: s.host.Transport(), Ready: func(ctx context.Context) error { _, err := s.host.Ready(ctx); return err },
		Preview: s.preview, Listen: address, Hosts: s.cfg.Hosts, Password: s.cfg.Password, Directory: projectDir,
		Answers: s.answers(), Clients: s.doors, Attach: s.doors.Attach, Command: s.doors.Command, Ticket: s.doors.Ticket, Events: s.events,
		Logger: s.log.With("from", "front"),
	}
	weak.config(&config)
	handler, err := gateway.New(config)
	if err != nil {
		return nil, err
	}
	return weak.handler(handler), nil
}

// open serves the front on listener.
func (s *service) open(listener net.Listener, handler http.Handler) {
	s.front = gateway.NewServer(handler, s.log)
	s.front.ConnContext = s.doors.ConnContext
	go func() {
		if err := s.front.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- fmt.Errorf("the front ended: %w", err)
		}
	}()
	s.url = "http://" + strings.Replace(listener.Addr().String(), "127.0.0.1:", "localhost:", 1)
}

// sessionBox is the sandbox of a root session.
func (s *service) sessionBox(ctx context.Context, root string) (*sandbox.Client, error) {
	box, err := s.fleet.Session(ctx, root)
	if err != nil {
		return nil, err
	}
	return box.Client, nil
}

// stop ends everything in the opposite order and keeps the files. It can be called at any stage.
func (s *service) stop(ctx context.Context) error { return s.end(ctx, (*fleet.Fleet).Stop) }

// destroy is stop, and removes every sandbox with its files.
func (s *service) destroy(ctx context.Context) error { return s.end(ctx, (*fleet.Fleet).DestroyAll) }

func (s *service) end(ctx context.Context, sandboxes func(*fleet.Fleet, context.Context) error) error {
	var errs []error
	if s.front != nil {
		errs = append(errs, s.front.Close())
		s.preview.Close()
	}
	s.api.close()
	if s.stopWatcher != nil {
		s.stopWatcher()
		s.watching.Wait()
	}
	if s.host != nil {
		errs = append(errs, s.host.Stop(ctx))
	}
	if s.agent != nil {
		s.agent.close()
	}
	if s.undo != nil {
		s.undo.Close()
	}
	if s.doors != nil {
		s.doors.Close()
	}
	if s.fleet != nil {
		errs = append(errs, sandboxes(s.fleet, ctx))
	}
	if s.egress != nil {
		s.egress.Close()
	}
	if s.scripted != nil {
		errs = append(errs, s.scripted.Close())
	}
	s.projects.close()
	if s.driver != nil {
		errs = append(errs, detach(ctx, s.driver), s.driver.Close())
	}
	s.images.close()
	if s.home != nil {
		s.home.release()
	}
	return errors.Join(errs...)
}
