package surface

import (
	"context"
	"crypto/rand"
	"maps"
	"path"
	"strings"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
	"github.com/tongs-dev/tongs/sandbox/shell"
)

var sessionMethods = capnweb.Methods{
	"createSession": guarded("session.create", "", (*box).createSession),
	"getSession":    guarded("session.get", "sessionId", (*box).getSession),
	"deleteSession": guarded("session.delete", "sessionId", (*box).deleteSession),
	"listSessions":  guarded("session.list", "", (*box).listSessions),
}

// sessionFunctions are what an ExecutionSession object has.
var sessionFunctions = []string{
	"exec", "execStream", "startProcess", "listProcesses", "getProcess", "killProcess", "killAllProcesses",
	"cleanupCompletedProcesses", "getProcessLogs", "streamProcessLogs", "writeFile", "readFile", "readFileStream", "watch",
	"mkdir", "deleteFile", "renameFile", "moveFile", "listFiles", "exists", "gitCheckout", "setEnvVars",
	"createCodeContext", "runCode", "runCodeStream", "listCodeContexts", "deleteCodeContext", "terminal",
	"mountBucket", "unmountBucket", "createBackup", "restoreBackup",
}

type sessionOptions struct {
	ID               string             `json:"id"`
	Name             string             `json:"name"`
	Env              map[string]*string `json:"env"`
	Cwd              string             `json:"cwd"`
	CommandTimeoutMs float64            `json:"commandTimeoutMs"`
}

// createSession makes a session of a shell: a directory and variables that its commands begin with, and
// change. It is kept in the sandbox. It is no boundary: all sessions have the same files and processes.
func (b *box) createSession(ctx context.Context, o *sessionOptions) (capnweb.Object, error) {
	const op = "create session"
	if o == nil {
		o = &sessionOptions{}
	}
	if o.ID == "" {
		if o.ID = o.Name; o.ID == "" {
			o.ID = "session-" + strings.ToLower(rand.Text())[:12]
		}
	}
	timeout, err := duration(op, "commandTimeoutMs", o.CommandTimeoutMs)
	if err != nil {
		return nil, err
	}
	env, unset := b.state.environment(o.Env)
	sh, err := shell.Create(ctx, b.Client, shell.Spec{Name: o.ID, Dir: o.Cwd, Env: env, Unset: unset})
	if err != nil {
		return nil, err
	}
	b.state.setTimeout(o.ID, timeout)
	return b.sessionObject(sh), nil
}

// getSession gives a session that was created before.
func (b *box) getSession(ctx context.Context, id string) (capnweb.Object, error) {
	sh, err := shell.Open(ctx, b.Client, id)
	if err != nil {
		return nil, err
	}
	return b.sessionObject(sh), nil
}

// deleteSession ends a session, with what its commands have running.
func (b *box) deleteSession(ctx context.Context, id string) (*sessionEnd, error) {
	sh, err := shell.Open(ctx, b.Client, id)
	if err != nil {
		return nil, err
	}
	b.state.setTimeout(id, 0)
	return &sessionEnd{true, id, timestamp(time.Now())}, sh.Delete(ctx)
}

type sessionEnd struct {
	Success   bool   `json:"success"`
	SessionID string `json:"sessionId"`
	Timestamp string `json:"timestamp"`
}

func (b *box) listSessions(ctx context.Context) ([]string, error) {
	names, err := shell.List(ctx, b.Client)
	if names == nil {
		names = []string{}
	}
	return names, err
}

// sessionObject is an ExecutionSession: its id, and the functions that are bound to it.
func (b *box) sessionObject(sh *shell.Session) capnweb.Object {
	s := *b
	s.session, s.shell = sh.Name(), sh
	s.life.hold()
	return append(capnweb.Object{{Key: "id", Value: sh.Name()}}, functions(surfaceClass.New(&s), sessionFunctions)...)
}

// place fills in what a session's command begins with. Outside of sessions commands begin in the project,
// with the sandbox's variables.
func (b *box) place(ctx context.Context, s *sandbox.ProcessSpec, own map[string]*string) error {
	if b.shell == nil {
		s.Env, s.Unset = b.state.environment(own)
		return nil
	}
	st, err := b.shell.State(ctx)
	if err != nil {
		return err
	}
	env := maps.Clone(st.Set)
	if env == nil {
		env = make(map[string]string)
	}
	s.Unset = append([]string(nil), st.Unset...)
	for name, value := range own {
		if value == nil {
			delete(env, name)
			s.Unset = append(s.Unset, name)
		} else {
			env[name] = *value
		}
	}
	for i := len(s.Unset) - 1; i >= 0; i-- {
		if _, set := env[s.Unset[i]]; set {
			s.Unset = append(s.Unset[:i], s.Unset[i+1:]...)
		}
	}
	s.Env = env
	s.Dir = below(st.Dir, s.Dir)
	return nil
}

func below(dir, name string) string {
	if name == "" {
		return dir
	}
	if dir == "" || path.IsAbs(name) {
		return name
	}
	return strings.TrimSuffix(dir, "/") + "/" + name
}

// path resolves a path of the caller. Relative ones of a session begin at its directory, others at
// the project's.
func (b *box) path(ctx context.Context, name string) (string, error) {
	if b.shell == nil || name == "" || path.IsAbs(name) {
		return name, nil
	}
	st, err := b.shell.State(ctx)
	if err != nil {
		return "", err
	}
	return below(st.Dir, name), nil
}

// execInShell is exec for a session: what the command changes is there for the next one.
func (b *box) execInShell(ctx context.Context, spec sandbox.ProcessSpec, o *commandOptions, limit int64) (*sandbox.ExecResult, error) {
	c := shell.Command{
		Script: spec.Argv[2], Dir: o.Cwd, ID: spec.ID, Timeout: spec.Timeout, LogBytes: execLog, MaxOutput: limit,
		Labels: spec.Labels, Env: make(map[string]string),
	}
	for name, value := range o.Env {
		if value == nil {
			return nil, invalid("exec", "a variable cannot be unset for one command of a session", "unset it in the command: unset "+clipped(name))
		}
		c.Env[name] = *value
	}
	if o.Stdin != nil {
		c.Input = []byte(*o.Stdin)
	}
	res, err := b.shell.Exec(ctx, c)
	if res == nil {
		return nil, err
	}
	return &res.ExecResult, err
}
