package shell

import (
	"context"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/tongs-dev/tongs/sandbox"
)

// Spec says how a session begins.
type Spec struct {
	// Name is 1 to 64 of A-Z a-z 0-9 . _ -, and does not begin with a dot.
	Name string
	// Dir is the first working directory; default the project's.
	Dir string
	// Env is put on top of the sandbox's environment, Unset taken out of it.
	Env   map[string]string
	Unset []string
}

// Session is a session of a shell. It may be used by many goroutines, and by
// several processes at a time.
type Session struct {
	box  *sandbox.Client
	name string
	dir  string // where it is kept

	mu sync.Mutex // changes of the state by this process
}

// label marks the processes of a session with its name.
const label = "tongs.shell"

var validName = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$`)

// place finds where a session is kept. The guest is asked for the home directory.
func place(ctx context.Context, box *sandbox.Client, op, name string) (*Session, error) {
	if !validName.MatchString(name) {
		return nil, sandbox.Errf(sandbox.CodeInvalidArgument, op, fmt.Sprintf("%.80q is not the name of a session", name), "it has 1 to 64 of A-Z a-z 0-9 . _ -, and does not begin with a dot")
	}
	home, err := sessions(ctx, box)
	if err != nil {
		return nil, err
	}
	return &Session{box: box, name: name, dir: home + "/" + name}, nil
}

func sessions(ctx context.Context, box *sandbox.Client) (string, error) {
	info, err := box.Info(ctx)
	if err != nil {
		return "", err
	}
	return info.Home + "/.local/state/tongs/shell", nil
}

// Create makes a session. CodeSessionExists; CodeInvalidArgument; what the guest
// says of a directory that isn't one, or when there is no bash, which must be of
// version 4.4 or later.
func Create(ctx context.Context, box *sandbox.Client, spec Spec) (*Session, error) {
	const op = "create session"
	s, err := place(ctx, box, op, spec.Name)
	if err != nil {
		return nil, err
	}
	st := State{}
	if st.Bash, err = findBash(ctx, box, op); err != nil {
		return nil, err
	}
	if spec.Dir != "" {
		if st.Dir, err = s.absolute(ctx, op, "", spec.Dir); err != nil {
			return nil, err
		}
	}
	if err := checkVariables(op, spec.Env, spec.Unset); err != nil {
		return nil, err
	}
	st.apply(change{unset: spec.Unset})
	st.apply(change{set: spec.Env})
	// The directory is what makes it: of two that create it, one succeeds.
	if err := box.Mkdir(ctx, path.Dir(s.dir), true); err != nil {
		return nil, err
	}
	if err := box.Mkdir(ctx, s.dir, false); err != nil {
		if sandbox.CodeOf(err) == sandbox.CodeFileExists {
			return nil, sandbox.Errf(sandbox.CodeSessionExists, op, "there is a session "+spec.Name+" already", "open it, or choose another name")
		}
		return nil, err
	}
	err = s.furnish(ctx, st)
	if err != nil {
		_ = box.RemoveFile(context.WithoutCancel(ctx), s.dir, true)
		return nil, err
	}
	return s, nil
}

// findBash gives the path of the sandbox's bash.
func findBash(ctx context.Context, box *sandbox.Client, op string) (string, error) {
	res, err := box.Exec(ctx, sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"bash", "-c", `printf %s "$BASH"; test "${BASH_VERSINFO[0]}${BASH_VERSINFO[1]}" -ge 44`}}, MaxOutput: 4096})
	if err != nil {
		return "", err
	}
	if found := string(res.Stdout); res.Exit.Success() && path.IsAbs(found) {
		return found, nil
	}
	return "", sandbox.Errf(sandbox.CodeNotSupported, op, "the sandbox's bash is older than 4.4", "use an image with a newer one")
}

func (s *Session) furnish(ctx context.Context, st State) error {
	if err := s.box.Chmod(ctx, s.dir, 0o700); err != nil {
		return err
	}
	if err := s.writeStartup(ctx); err != nil {
		return err
	}
	_, err := s.box.WriteFile(ctx, s.dir+"/state", []byte("{}"), sandbox.WriteOptions{Exclusive: true, Mode: 0o600})
	if err != nil {
		return err
	}
	return s.update(ctx, "create session", func(now *State) { *now = st })
}

func (s *Session) writeStartup(ctx context.Context) error {
	_, err := s.box.WriteFile(ctx, s.dir+"/startup", []byte(startup), sandbox.WriteOptions{Mode: 0o600})
	return err
}

// Open finds a session that was created before, by this process or another one.
// CodeSessionNotFound.
func Open(ctx context.Context, box *sandbox.Client, name string) (*Session, error) {
	const op = "open session"
	s, err := place(ctx, box, op, name)
	if err != nil {
		return nil, err
	}
	if _, _, err := s.load(ctx, op); err != nil {
		if sandbox.CodeOf(err) == sandbox.CodeSessionDestroyed {
			return nil, sandbox.Errf(sandbox.CodeSessionNotFound, op, "there is no session "+name, "create it")
		}
		return nil, err
	}
	if err := s.writeStartup(ctx); err != nil {
		return nil, err
	}
	if err := s.adopt(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// List gives the names of all sessions of a sandbox, sorted.
func List(ctx context.Context, box *sandbox.Client) ([]string, error) {
	dir, err := sessions(ctx, box)
	if err != nil {
		return nil, err
	}
	var names []string
	for opts := (sandbox.ListOptions{}); ; {
		page, err := box.ListFiles(ctx, dir, opts)
		if sandbox.CodeOf(err) == sandbox.CodeFileNotFound {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		for _, e := range page.Entries {
			if e.Type == sandbox.TypeDirectory && validName.MatchString(e.Name) {
				names = append(names, e.Name)
			}
		}
		if page.Next == "" {
			slices.Sort(names)
			return names, nil
		}
		opts.Cursor = page.Next
	}
}

// Name is the session's name.
func (s *Session) Name() string { return s.name }

// State is what the next command begins with.
func (s *Session) State(ctx context.Context) (State, error) {
	st, _, err := s.load(ctx, "session state")
	return st, err
}

// SetEnv sets variables for the commands to come, and takes others out.
func (s *Session) SetEnv(ctx context.Context, env map[string]string, unset ...string) error {
	const op = "set variables"
	if err := checkVariables(op, env, unset); err != nil {
		return err
	}
	return s.update(ctx, op, func(st *State) {
		st.apply(change{unset: unset})
		st.apply(change{set: maps.Clone(env)})
	})
}

// SetDir sets the working directory of the commands to come; a relative one
// begins at the present one. It is the way out of a directory that was removed.
func (s *Session) SetDir(ctx context.Context, dir string) error {
	const op = "set directory"
	st, _, err := s.load(ctx, op)
	if err != nil {
		return err
	}
	if dir, err = s.absolute(ctx, op, st.Dir, dir); err != nil {
		return err
	}
	return s.update(ctx, op, func(st *State) { st.Dir = dir })
}

// Delete ends the session: it kills what its commands have running, and forgets
// its state. A session that is gone already is no error.
func (s *Session) Delete(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	// First what lets new ones begin.
	err := s.box.RemoveFile(ctx, s.dir, true)
	if err != nil && sandbox.CodeOf(err) != sandbox.CodeFileNotFound {
		return err
	}
	all, err := s.box.List(ctx)
	if err != nil {
		return err
	}
	for _, p := range all {
		if p.Running && p.Labels[label] == s.name {
			if err := s.box.Kill(ctx, p.ID); err != nil && sandbox.CodeOf(err) != sandbox.CodeProcessNotFound {
				return err
			}
		}
	}
	return nil
}

// absolute makes a directory absolute, and sees that it is one.
func (s *Session) absolute(ctx context.Context, op, base, dir string) (string, error) {
	if dir == "" {
		return "", sandbox.Errf(sandbox.CodeInvalidPath, op, "the directory is empty", "")
	}
	dir = join(base, dir)
	info, err := s.box.Stat(ctx, dir)
	if err != nil {
		return "", err
	}
	if info.Type != sandbox.TypeDirectory {
		return "", sandbox.Errf(sandbox.CodeNotDirectory, op, fmt.Sprintf("%.200q is not a directory", dir), "")
	}
	if path.IsAbs(dir) {
		return dir, nil
	}
	return info.Path, nil
}

// join puts a directory below another. It isn't cleaned: "a/.." is what the kernel
// says it is.
func join(base, dir string) string {
	if base == "" || path.IsAbs(dir) {
		return dir
	}
	return strings.TrimSuffix(base, "/") + "/" + dir
}

func checkVariables(op string, env map[string]string, unset []string) error {
	for name, value := range env {
		if strings.ContainsRune(value, 0) {
			return sandbox.Errf(sandbox.CodeInvalidArgument, op, fmt.Sprintf("the value of %.40q holds a NUL byte", name), "")
		}
		if err := checkName(op, name); err != nil {
			return err
		}
	}
	for _, name := range unset {
		if err := checkName(op, name); err != nil {
			return err
		}
	}
	return nil
}

func checkName(op, name string) error {
	if name == "" || strings.ContainsAny(name, "=\x00") {
		return sandbox.Errf(sandbox.CodeInvalidArgument, op, fmt.Sprintf("%.40q is not the name of a variable", name), "it has no '=' and no NUL byte")
	}
	return nil
}
