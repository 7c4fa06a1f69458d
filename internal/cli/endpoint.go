package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	tongs "github.com/tongs-dev/tongs"
	"github.com/tongs-dev/tongs/internal/api"
	"github.com/tongs-dev/tongs/sandbox"
)

// endpointFile is where a home says at which URL its endpoint is, while one runs.
const endpointFile = "api-url"

// endpoint is the public endpoint of a running service.
type endpoint struct {
	listener net.Listener
	tokens   *api.Tokens
	server   *api.Server
	http     *http.Server
	url      string
	file     string // endpointFile, "" when it was not written
}

// listenAPI takes the endpoint's address; nil if there is to be none.
func listenAPI(cfg *Config) (*endpoint, error) {
	address := cfg.apiListen()
	if address == "" {
		return nil, nil
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, &sandbox.Error{Code: sandbox.CodePortInUse, Op: "listen on " + address, Message: err.Error(), Err: err,
			Hint: "stop what uses it (perhaps another tongs: `tongs down`), choose another address with --api-listen, or do without: --api-listen ''"}
	}
	return &endpoint{listener: listener}, nil
}

// openAPI serves the endpoint, if there is to be one.
func (s *service) openAPI() (err error) {
	e := s.api
	if e == nil {
		return nil
	}
	if e.tokens, err = api.OpenTokens(s.home.dir); err != nil {
		return err
	}
	e.server = api.New(api.Config{
		Fleet: s.fleet, Tokens: e.tokens, Logger: s.log.With("from", "api"), Version: tongs.Version,
		Hosts: s.cfg.Hosts, Origins: s.cfg.APIOrigins, Root: s.host.RootSession, Titles: s.sessionTitles,
		Surface: s.surface, Forget: s.forgotten, Project: s.projects.prepare, Image: s.images.root,
	})
	e.http = api.NewServer(e.server, s.log)
	go func() {
		if err := e.http.Serve(e.listener); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- fmt.Errorf("the endpoint ended: %w", err)
		}
	}()
	e.url = "http://" + e.listener.Addr().String()
	file := filepath.Join(s.home.dir, endpointFile)
	if err := os.WriteFile(file, []byte(e.url+"\n"), 0o600); err != nil {
		return homeError(s.home.dir, err)
	}
	e.file = file
	if !api.IsLoopback(e.listener.Addr().String()) {
		s.notes = append(s.notes, "the endpoint is reachable from other machines, and tokens travel to it in clear: put a proxy that speaks TLS before it")
	}
	return nil
}

// close ends the endpoint, however far it had come.
func (e *endpoint) close() {
	if e == nil {
		return
	}
	if e.file != "" {
		os.Remove(e.file)
	}
	if e.server != nil {
		e.server.Close()
	}
	if e.http != nil {
		e.http.Close()
	}
	e.listener.Close()
	if e.tokens != nil {
		e.tokens.Close()
	}
}

// tokenPath is where the endpoint's token is.
func (s *service) tokenPath() string { return filepath.Join(s.home.dir, api.TokenFile) }

// sessionTitles asks OpenCode what its sessions are called. Without an answer there are none.
func (s *service) sessionTitles(ctx context.Context) map[string]string {
	address := s.host.URL() + "/session?" + url.Values{"directory": {projectDir}}.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil
	}
	response, err := s.host.Client().Do(request)
	if err != nil {
		s.log.Debug("the titles of sessions are not known", "error", err)
		return nil
	}
	defer response.Body.Close()
	var sessions []struct{ ID, Title string }
	if err := json.NewDecoder(io.LimitReader(response.Body, 16<<20)).Decode(&sessions); err != nil {
		s.log.Debug("the titles of sessions are not known", "error", err)
		return nil
	}
	titles := make(map[string]string, len(sessions))
	for _, session := range sessions {
		titles[session.ID] = shorten(strings.Join(strings.Fields(session.Title), " "), 200)
	}
	return titles
}
