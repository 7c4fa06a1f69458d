package opencode

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tongs-dev/tongs/plugin"
	"github.com/tongs-dev/tongs/sandbox"
)

// launchLabel is the label of the process that holds the hash of its launch.
const launchLabel = "tongs.launch"

// noInstall makes OpenCode believe that the plugin library is installed in a
// configuration directory, so that it asks no package registry for it. Our
// plugin is one file and needs no library.
const noInstall = `{"name":"tongs","lockfileVersion":3,"packages":{"":{"dependencies":{"@opencode-ai/plugin":"*"}}}}` + "\n"

// launched is an OpenCode that was started or taken over.
type launched struct {
	server *Server
	stop   context.CancelFunc // ends the copying of its log
	copied chan struct{}      // closed when all of it has been copied
}

func (l *launched) drop() {
	if l != nil {
		l.stop()
		<-l.copied
	}
}

// bring makes OpenCode ready: the running one if it was launched just as this
// Host would, else a new one. After an error the process may still run; a
// launched that is not nil has to be dropped.
func (h *Host) bring(ctx context.Context) (*launched, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, h.cfg.StartTimeout, fmt.Errorf("it took longer than %v", h.cfg.StartTimeout))
	defer cancel()
	m, err := h.cfg.Machine(ctx)
	if err != nil {
		return nil, startupError(ctx, "the agent host cannot be reached", err)
	}
	spec := h.spec()
	if err := h.putFiles(ctx, m); err != nil {
		return nil, startupError(ctx, "its files cannot be written in the agent host", err)
	}

	if err := h.checkShell(ctx, m); err != nil {
		return nil, err
	}

	info, err := m.Get(ctx, processID)
	if err != nil && sandbox.CodeOf(err) != sandbox.CodeProcessNotFound {
		return nil, startupError(ctx, "the agent host cannot be asked for it", err)
	}
	if err == nil && info.Running && info.Labels[launchLabel] != spec.Labels[launchLabel] {
		h.logger.Info("OpenCode runs with another configuration and is started anew", "pid", info.PID)
		if err := h.stopProcess(); err != nil {
			return nil, err
		}
		info.Running = false
	}
	after := h.log.Last()
	fresh := err != nil || !info.Running
	if fresh {
		if err == nil {
			if err := m.Remove(ctx, processID); err != nil && sandbox.CodeOf(err) != sandbox.CodeProcessNotFound {
				return nil, startupError(ctx, "the ended process cannot be removed", err)
			}
		}
		if info, err = m.Start(ctx, spec); err != nil {
			return nil, startupError(ctx, "it cannot be started", err)
		}
		h.logger.Info("OpenCode was started", "pid", info.PID)
	} else {
		h.logger.Info("OpenCode runs already and is taken over", "pid", info.PID)
	}

	logCtx, stopLog := context.WithCancel(context.WithoutCancel(ctx))
	l := &launched{stop: stopLog, copied: make(chan struct{}), server: &Server{
		URL: h.URL(), Port: h.cfg.Port, Fresh: fresh,
		Process: &Process{ID: processID, PID: info.PID, Started: info.Started, Launch: spec.Labels[launchLabel], host: h},
	}}
	go func() {
		defer close(l.copied)
		copyLog(logCtx, h.cfg.Machine, processID, h.log, h.logger.With("from", "opencode"))
	}()
	if err := h.makeReady(ctx, l, after); err != nil {
		return l, err
	}
	return l, nil
}

// makeReady returns when the server answers, the plugin is connected, its tools
// have been checked and OnStart is done.
func (h *Host) makeReady(ctx context.Context, l *launched, after uint64) error {
	ready, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var watcher sync.WaitGroup
	defer watcher.Wait()
	defer cancel(nil)
	watcher.Go(func() {
		exit, err := h.waitProcess(ready, l.server.Process.PID)
		if ready.Err() != nil {
			return
		}
		reason := describeExit(exit)
		if err != nil {
			reason = err.Error()
		}
		select { // Its last words say more than its status.
		case <-l.copied:
		case <-time.After(time.Second):
		case <-ready.Done():
		}
		cancel(errors.New("it ended before it was ready: " + reason))
	})

	if l.server.Fresh {
		if err := h.waitListening(ready, after); err != nil {
			return h.withLastWords(ready, "it does not listen", err)
		}
	} else if err := h.waitAnswer(ready); err != nil {
		return h.withLastWords(ready, "it does not answer", err)
	}
	if err := h.checkPlugins(ready); err != nil {
		return err
	}
	h.bridge.Poke()
	checked := make(chan error, 1) // the tools are read back while the bridge connects
	go func() { checked <- h.checkTools(ready) }()
	bridged := h.bridge.Wait(ready)
	if err := <-checked; err != nil {
		return err
	}
	if bridged != nil {
		return h.withLastWords(ready, "its plugin cannot be reached", bridged)
	}
	if l.server.Fresh && h.cfg.OnStart != nil {
		if err := h.cfg.OnStart(ready, l.server); err != nil {
			return startupError(ready, "OnStart failed", err)
		}
	}
	if ready.Err() != nil {
		return h.withLastWords(ready, "it is not ready", context.Cause(ready))
	}
	return nil
}

// waitListening waits for the line in which OpenCode says that it listens. A
// request on a connection that was accepted before it is never answered.
func (h *Host) waitListening(ctx context.Context, after uint64) error {
	for line := range h.log.Follow(ctx, after) {
		if strings.Contains(line.Text, "server listening on http") {
			return nil
		}
	}
	return context.Cause(ctx)
}

// waitAnswer waits for the answer of a server whose listening line may be gone.
func (h *Host) waitAnswer(ctx context.Context) error {
	pause := newBackoff(50*time.Millisecond, time.Second)
	for {
		err := h.probe(ctx, time.Second)
		if err == nil {
			return nil
		}
		if !pause.wait(ctx) {
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

func (h *Host) configDir() string { return path.Join(h.cfg.Home, ".tongs", "opencode") }
func (h *Host) tokenFile() string { return path.Join(h.cfg.Home, ".tongs", "bridge.token") }

// putFiles writes what OpenCode and the plugin read in the agent host.
func (h *Host) putFiles(ctx context.Context, m Machine) error {
	own := path.Join(h.cfg.Home, ".config", "opencode")
	for _, dir := range []string{path.Join(h.configDir(), "plugins"), path.Join(h.configDir(), "node_modules"), path.Join(own, "node_modules")} {
		if err := m.Mkdir(ctx, dir, true); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		name string
		data []byte
		mode uint32
	}{
		{path.Join(h.configDir(), "plugins", plugin.FileName), plugin.Bundle(), 0o644},
		{path.Join(h.configDir(), "package-lock.json"), []byte(noInstall), 0o644},
		{path.Join(own, "package-lock.json"), []byte(noInstall), 0o644},
		{h.tokenFile(), []byte(h.token + "\n"), 0o600},
	} {
		if _, err := m.WriteFile(ctx, f.name, f.data, sandbox.WriteOptions{Mode: f.mode}); err != nil {
			return err
		}
	}
	return nil
}

// checkShell holds that the shell of the configuration, which is to refuse every
// command, is there: if it is not, OpenCode takes another one without a word.
func (h *Host) checkShell(ctx context.Context, m Machine) error {
	var content struct {
		Shell string `json:"shell"`
	}
	if err := json.Unmarshal(h.cfg.Content, &content); err != nil {
		return startupError(ctx, "its configuration is not JSON", err)
	}
	if content.Shell == "" {
		return nil
	}
	info, err := m.Stat(ctx, content.Shell)
	if err == nil && (info.Type != sandbox.TypeFile || info.Mode&0o111 == 0) {
		err = errors.New("it is not an executable file")
	}
	if err != nil {
		return startupError(ctx, "the shell that refuses commands, "+content.Shell+", is not in the agent host", err)
	}
	return nil
}

// spec is the process to run, labelled with a hash of all that makes it what it is.
func (h *Host) spec() sandbox.ProcessSpec {
	env := map[string]string{
		"HOME":                            h.cfg.Home,
		"XDG_CONFIG_HOME":                 path.Join(h.cfg.Home, ".config"),
		"XDG_DATA_HOME":                   path.Join(h.cfg.Home, ".local", "share"),
		"XDG_STATE_HOME":                  path.Join(h.cfg.Home, ".local", "state"),
		"XDG_CACHE_HOME":                  path.Join(h.cfg.Home, ".cache"),
		"OPENCODE_CONFIG_DIR":             h.configDir(),
		"OPENCODE_CONFIG_CONTENT":         string(h.cfg.Content),
		"OPENCODE_DISABLE_PROJECT_CONFIG": "1",
		"OPENCODE_DISABLE_MODELS_FETCH":   "1",
		"OPENCODE_DISABLE_AUTOUPDATE":     "1",
		"OPENCODE_DISABLE_SHARE":          "1",
		"OPENCODE_DISABLE_LSP_DOWNLOAD":   "1",
		"OPENCODE_DISABLE_CLAUDE_CODE":    "1",
		plugin.EnvPort:                    strconv.Itoa(h.cfg.BridgePort),
		plugin.EnvTokenFile:               h.tokenFile(),
		plugin.EnvProject:                 h.cfg.Project,
	}
	maps.Copy(env, h.cfg.Env)
	spec := sandbox.ProcessSpec{
		ID:    processID,
		Argv:  []string{h.cfg.Binary, "serve", "--hostname", "127.0.0.1", "--port", strconv.Itoa(h.cfg.Port), "--print-logs", "--log-level", "INFO"},
		Env:   env,
		Unset: []string{"OPENCODE_CONFIG", "OPENCODE_PURE", "OPENCODE_PERMISSION", "OPENCODE_AUTH_CONTENT", "OPENCODE_SERVER_PASSWORD", "BUN_OPTIONS", "BUN_BE_BUN", "NODE_OPTIONS"},
		Dir:   h.cfg.Project,
		Mode:  sandbox.Follow,
	}
	sum := sha256.New()
	_ = json.NewEncoder(sum).Encode([]any{spec.Argv, spec.Env, spec.Dir})
	sum.Write(plugin.Bundle())
	spec.Labels = map[string]string{launchLabel: hex.EncodeToString(sum.Sum(nil))}
	return spec
}

// startupError says why OpenCode did not become ready. An error that says all
// by itself stays what it is.
func startupError(ctx context.Context, message string, err error) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	var known *sandbox.Error
	if errors.As(err, &known) && (known.Code == CodeStartup || known.Code == CodeToolNotOurs || known.Code == sandbox.CodeConnectionLost) {
		return err
	}
	return &sandbox.Error{Code: CodeStartup, Op: "start OpenCode", Message: message + ": " + err.Error(), Err: err}
}

// withLastWords is startupError with the end of OpenCode's log.
func (h *Host) withLastWords(ctx context.Context, message string, err error) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	var words []string
	for _, line := range h.log.Tail(5) {
		text := line.Text
		if len(text) > 300 {
			text = text[:300] + "…"
		}
		words = append(words, text)
	}
	hint := "OpenCode has written nothing"
	if len(words) > 0 {
		hint = "the end of its log: " + strings.Join(words, " | ")
	}
	return &sandbox.Error{Code: CodeStartup, Op: "start OpenCode", Message: message + ": " + err.Error(), Hint: hint, Err: err}
}
