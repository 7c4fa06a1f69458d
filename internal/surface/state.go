package surface

import (
	"maps"
	"sync"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
	"github.com/tongs-dev/tongs/sandbox/code"
)

// State is what the SDK's methods remember of one life of a sandbox, whoever
// asks: variables and sessions. It lives in this process: after its restart they are
// made again.
type State struct {
	mu  sync.Mutex
	env map[string]*string // nil values are unset
	// timeouts are those of the commands of sessions that have one.
	timeouts map[string]time.Duration
	contexts map[string]heldContext

	creating sync.Mutex // of default contexts
}

// heldContext is an interpreter, and the client that it is reached through.
type heldContext struct {
	client *sandbox.Client
	c      *code.Context
	used   time.Time
}

// States holds one State for each sandbox. The zero value is ready.
type States struct {
	mu  sync.Mutex
	all map[string]*lifeState
}

type lifeState struct {
	incarnation string
	state       *State
}

// Of returns the state of a sandbox in the life that incarnation names (see
// sandbox.Client.Incarnation). A new life begins with nothing.
func (s *States) Of(id, incarnation string) *State {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.all[id]
	if l == nil || l.incarnation != incarnation {
		if l != nil {
			l.state.drop()
		}
		l = &lifeState{incarnation, new(State)}
		if s.all == nil {
			s.all = make(map[string]*lifeState)
		}
		s.all[id] = l
	}
	return l.state
}

// Forget drops the state of a sandbox that is gone.
func (s *States) Forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.all[id]; l != nil {
		l.state.drop()
	}
	delete(s.all, id)
}

// setEnv changes the variables of all later commands; nil unsets one.
func (s *State) setEnv(env map[string]*string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.env == nil {
		s.env = make(map[string]*string)
	}
	if n := len(s.env) + len(env); n > maxVariables {
		return sandbox.Errf(sandbox.CodeInvalidArgument, "set variables", "a sandbox can have 4096 variables set", "write them to a file that commands read")
	}
	maps.Copy(s.env, env)
	return nil
}

// maxVariables bounds what setEnvVars makes this process hold.
const maxVariables = 4096

// environment is what the state's variables and a call's own make together.
func (s *State) environment(own map[string]*string) (env map[string]string, unset []string) {
	s.mu.Lock()
	all := maps.Clone(s.env)
	s.mu.Unlock()
	if all == nil {
		all = make(map[string]*string)
	}
	maps.Copy(all, own)
	env = make(map[string]string, len(all))
	for name, value := range all {
		if value == nil {
			unset = append(unset, name)
		} else {
			env[name] = *value
		}
	}
	return env, unset
}

func (s *State) setTimeout(session string, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d == 0 {
		delete(s.timeouts, session)
		return
	}
	if s.timeouts == nil {
		s.timeouts = make(map[string]time.Duration)
	}
	s.timeouts[session] = d
}

func (s *State) timeout(session string) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.timeouts[session]
}

// context gives the interpreter that is held by that client, or nil.
func (s *State) context(client *sandbox.Client, id string) *code.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.contexts[id]; h.client == client {
		return h.c
	}
	return nil
}

// keep holds an interpreter, in place of one that was held before: attaching disconnects those.
func (s *State) keep(client *sandbox.Client, id string, c *code.Context) *code.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.contexts == nil {
		s.contexts = make(map[string]heldContext)
	}
	if h, ok := s.contexts[id]; ok {
		h.c.Detach()
	}
	s.contexts[id] = heldContext{client, c, time.Now()}
	return c
}

func (s *State) take(id string) *code.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.contexts[id]
	delete(s.contexts, id)
	return h.c
}

func (s *State) use(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h, ok := s.contexts[id]; ok {
		h.used = time.Now()
		s.contexts[id] = h
	}
}

func (s *State) used(id string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.contexts[id].used
}

// drop lets go of what is held.
func (s *State) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.contexts {
		h.c.Detach()
	}
	s.contexts = nil
}
