package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/tongs-dev/tongs/internal/gateway"
	"github.com/tongs-dev/tongs/internal/opencode"
	"github.com/tongs-dev/tongs/internal/verify"
	"github.com/tongs-dev/tongs/sandbox"
)

// CodeEscape is the code of a start that was refused because a door leads out of the sandboxes.
const CodeEscape = "DOOR_ESCAPES"

// selfCheckTimeout bounds the check at start, which takes about a second.
const selfCheckTimeout = 60 * time.Second

// check is what a service offers so that all its doors can be driven.
type check struct {
	models    []string
	commands  map[string]string
	canaryKey string // of the scripted models' provider
}

// apply adds it to OpenCode's configuration, and returns the canary among the keys.
func (c *check) apply(options *opencode.ConfigureOptions) string {
	if c == nil {
		return ""
	}
	options.ScriptedModels, options.Commands = c.models, c.commands
	options.Keys = maps.Clone(options.Keys)
	if options.Keys == nil {
		options.Keys = make(map[string]string)
	}
	options.Keys[opencode.ScriptedProvider] = c.canaryKey
	return c.canaryKey
}

// selfCheck drives the doors that need no model, before anybody else can. An escape ends the start.
func (s *service) selfCheck(ctx context.Context, handler http.Handler, opts startOptions) error {
	if opts.weak.unchecked || opts.check != nil { // who brings a check of its own drives all doors
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, selfCheckTimeout, fmt.Errorf("the check of the doors did not end in %v", selfCheckTimeout))
	defer cancel()
	listener := newMemory()
	server := gateway.NewServer(handler, s.log)
	server.ConnContext = s.doors.ConnContext
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	defer func() { server.Close(); <-served }()

	began := time.Now()
	report, err := s.verify(ctx, verify.Target{
		URL: "http://localhost", Client: &http.Client{Transport: &http.Transport{DialContext: listener.dial}}, Quick: true,
	})
	if err != nil {
		return fmt.Errorf("the doors could not be checked, so the front stays shut: %w", err)
	}
	s.log.Info("doors checked", "doors", len(report.Rows), "took", time.Since(began))
	if found := report.Find(verify.Escaped); len(found) > 0 {
		return &sandbox.Error{Code: CodeEscape, Op: "check the doors", Message: "the front stays shut, because a door leads out of the sandboxes: " + strings.Join(found, "; "),
			Hint: "run `tongs verify` for the whole table; destroy the agent host if something has been put into it"}
	}
	for _, found := range report.Find(verify.Broken) {
		s.log.Warn("a door could not be checked", "door", found)
	}
	return nil
}

// verify drives doors of this service. The target needs a URL and a client.
func (s *service) verify(ctx context.Context, target verify.Target) (*verify.Report, error) {
	var mu sync.Mutex
	var sessions []string
	target.Project, target.Logger = projectDir, s.log
	target.AgentHost = func(ctx context.Context) (verify.Place, error) {
		agent, err := s.fleet.Named(ctx, agentHostName, s.agent.spec)
		return agent.Client, err
	}
	target.Username, target.Password = "opencode", s.cfg.Password
	for _, key := range s.cfg.Keys {
		target.Secrets = append(target.Secrets, key)
	}
	if s.canaryKey != "" {
		target.Secrets = append(target.Secrets, s.canaryKey)
	}
	target.Sandbox = func(ctx context.Context, session string) (verify.Place, error) {
		mu.Lock()
		sessions = append(sessions, session)
		mu.Unlock()
		return s.sessionBox(ctx, session)
	}
	defer func() { // the watcher does the same, but not when the service is about to end
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		for _, session := range sessions {
			if err := s.forget(end, session); err != nil {
				s.log.Warn("the sandbox of a check could not be removed", "error", err)
			}
		}
	}()
	return verify.Run(ctx, target)
}

// memory is a listener inside this process.
type memory struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newMemory() *memory { return &memory{conns: make(chan net.Conn), done: make(chan struct{})} }

func (m *memory) Accept() (net.Conn, error) {
	select {
	case conn := <-m.conns:
		return conn, nil
	case <-m.done:
		return nil, net.ErrClosed
	}
}

func (m *memory) Close() error {
	m.once.Do(func() { close(m.done) })
	return nil
}

func (m *memory) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

func (m *memory) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case m.conns <- far:
		return near, nil
	case <-m.done:
		return nil, errors.New("the check has ended")
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
