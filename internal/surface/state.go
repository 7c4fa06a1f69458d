package surface

import (
	"maps"
	"sync"

	"github.com/tongs-dev/tongs/sandbox"
)

// State is what the SDK's methods remember of one life of a sandbox, whoever
// asks: variables and sessions. It lives in this process: after its restart they are
// made again.
type State struct {
	mu  sync.Mutex
	env map[string]*string // nil values are unset
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
