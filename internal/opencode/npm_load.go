package opencode

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// maxNpmrc is the most bytes read of one .npmrc.
const maxNpmrc = 1 << 20

// NpmSources says where npm's settings are read from. The zero value means:
// the environment, directories and user of this process.
type NpmSources struct {
	Env        []string // like os.Environ; nil for this process's
	Dir        string   // where the search for the project's .npmrc begins; "" for the working directory
	Home       string   // the directory of the user's .npmrc; "" for $HOME
	GlobalFile string   // the global npmrc; "" to find it as npm does
}

// LoadNpmConfig reads the settings that npm would use, as npm 11 documents
// them (npmrc(5), config(7)): variables npm_config_* in any case, then the
// project's .npmrc, the user's (~/.npmrc or npm_config_userconfig), and the
// global one ($PREFIX/etc/npmrc or npm_config_globalconfig). ${NAME} in a value
// is the variable NAME, ${NAME?} may be unset.
//
// A project's .npmrc comes with whatever was cloned, so it is believed less:
// only registries and logins are taken from it, and ${NAME} is expanded there
// only if NAME is one that npm tooling uses (NODE_AUTH_TOKEN, or it contains
// "NPM"); otherwise it could send any secret of the environment to a host of
// its choice.
func LoadNpmConfig(s NpmSources) (*NpmConfig, error) {
	if s.Env == nil {
		s.Env = os.Environ()
	}
	env := make(map[string]string, len(s.Env))
	for _, kv := range s.Env {
		if k, v, ok := strings.Cut(kv, "="); ok {
			env[k] = v
		}
	}
	if s.Home == "" {
		s.Home = env["HOME"]
	}
	if s.Dir == "" {
		s.Dir, _ = os.Getwd() // without one there is no project
	}
	c := &NpmConfig{values: map[string]npmValue{}, getenv: func(k string) string { return env[k] }}

	// Strongest first: a key that is there already is not set again.
	for _, kv := range s.Env {
		name, value, ok := strings.Cut(kv, "=")
		const prefix = "npm_config_"
		if !ok || value == "" || len(name) <= len(prefix) || !strings.EqualFold(name[:len(prefix)], prefix) {
			continue
		}
		key := name[len(prefix):]
		if !strings.HasPrefix(key, "//") { // as npm does it: a leading underscore stays
			key = strings.ToLower(key[:1] + strings.ReplaceAll(key[1:], "_", "-"))
		}
		// The lower-case spelling is the one npm itself hands on: it wins.
		if _, dup := c.values[key]; !dup || strings.HasPrefix(name, prefix) {
			c.values[key] = npmValue{text: value, where: "the variable " + name}
		}
	}
	expandAny := func(string) bool { return true }
	userFile := filepath.Join(s.Home, ".npmrc")
	if v, ok := c.get("userconfig"); ok {
		userFile = v.text
	}
	if project := projectNpmrc(s.Dir); project != "" && !sameFile(project, userFile) {
		if err := c.readFile(project, projectMayExpand, projectMaySet); err != nil {
			return nil, err
		}
	}
	if s.Home != "" || userFile != ".npmrc" {
		if err := c.readFile(userFile, expandAny, nil); err != nil {
			return nil, err
		}
	}
	global := s.GlobalFile
	if global == "" {
		if v, ok := c.get("globalconfig"); ok {
			global = v.text
		} else {
			global = globalNpmrc(c, env)
		}
	}
	if global != "" && !sameFile(global, userFile) {
		if err := c.readFile(global, expandAny, nil); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// projectMayExpand tells which variables a project's .npmrc may use.
func projectMayExpand(name string) bool {
	return name == "NODE_AUTH_TOKEN" || strings.Contains(strings.ToUpper(name), "NPM")
}

// projectMaySet tells which settings a project's .npmrc may make.
func projectMaySet(key string) bool {
	return key == "registry" || strings.HasPrefix(key, "//") || strings.HasPrefix(key, "@") && strings.HasSuffix(key, ":registry")
}

// projectNpmrc finds the .npmrc of the project that dir is in: npm's project
// root is the nearest directory that has a package.json or node_modules, else
// dir itself.
func projectNpmrc(dir string) string {
	if dir == "" {
		return ""
	}
	for d := dir; ; d = filepath.Dir(d) {
		for _, mark := range []string{"package.json", "node_modules"} {
			if _, err := os.Stat(filepath.Join(d, mark)); err == nil {
				return filepath.Join(d, ".npmrc")
			}
		}
		if d == filepath.Dir(d) {
			return filepath.Join(dir, ".npmrc")
		}
	}
}

// globalNpmrc finds the global npmrc: <prefix>/etc/npmrc, where the prefix is
// set or is the parent of the directory that node is in.
func globalNpmrc(c *NpmConfig, env map[string]string) string {
	if v, ok := c.get("prefix"); ok {
		return filepath.Join(v.text, "etc", "npmrc")
	}
	if p := env["PREFIX"]; p != "" {
		return filepath.Join(p, "etc", "npmrc")
	}
	for _, dir := range filepath.SplitList(env["PATH"]) {
		node, err := exec.LookPath(filepath.Join(dir, "node"))
		if err != nil || !filepath.IsAbs(node) {
			continue
		}
		if real, err := filepath.EvalSymlinks(node); err == nil {
			node = real
		}
		return filepath.Join(filepath.Dir(filepath.Dir(node)), "etc", "npmrc")
	}
	return "/usr/local/etc/npmrc"
}

func sameFile(a, b string) bool {
	ia, err1 := os.Stat(a)
	ib, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(ia, ib)
}

// readFile adds the settings of one file that are not set yet. A file that
// does not exist is empty.
func (c *NpmConfig) readFile(name string, mayExpand, maySet func(string) bool) error {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) && maySet != nil {
		return nil
	}
	fail := func(err error) error {
		return &ObtainError{Code: CodeRegistryConfig, Op: "read npm's settings", Message: "cannot read " + name,
			Hint: "correct the file, or set npm_config_registry", Err: err}
	}
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return fail(errors.Join(err, errors.New("not a regular file")))
	}
	settings, err := parseNpmrc(io.LimitReader(f, maxNpmrc))
	if err != nil {
		return fail(err)
	}
	for key, v := range settings {
		key, err := c.expand(key, mayExpand)
		if err != nil {
			continue
		}
		if _, ok := c.values[key]; ok || maySet != nil && !maySet(key) {
			continue
		}
		v.where = name
		if v.text, err = c.expand(v.text, mayExpand); err != nil {
			// A setting of no interest here must not stop the start.
			if key == "registry" || strings.HasSuffix(key, ":registry") {
				return fail(fmt.Errorf("%s: %w", key, err))
			}
			continue
		}
		c.values[key] = v
	}
	return nil
}

var npmVariable = regexp.MustCompile(`(\\*)\$\{([^${}]+)\}`)

// expand replaces ${NAME} and ${NAME?}; an odd number of backslashes before it
// keeps it as it is.
func (c *NpmConfig) expand(s string, may func(string) bool) (string, error) {
	var missing error
	out := npmVariable.ReplaceAllStringFunc(s, func(m string) string {
		part := npmVariable.FindStringSubmatch(m)
		if len(part[1])%2 == 1 {
			return m[(len(part[1])+1)/2:]
		}
		name, optional := strings.CutSuffix(part[2], "?")
		if !may(name) {
			missing = fmt.Errorf("${%s} is not expanded in a project's .npmrc (put the line into ~/.npmrc)", name)
			return m
		}
		v := c.getenv(name)
		if v == "" && !optional {
			missing = fmt.Errorf("the variable %s is not set", name)
		}
		return part[1][:len(part[1])/2] + v
	})
	return out, missing
}

// parseNpmrc reads the ini dialect of .npmrc: "key = value", "key[] = value",
// comments from ; or # to the end of the line unless quoted or escaped, values in
// double quotes as JSON strings or in single quotes.
// A line "[section]" ends what npm reads as top-level settings.
func parseNpmrc(r io.Reader) (map[string]npmValue, error) {
	out := map[string]npmValue{}
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, maxNpmrc)
	for sc.Scan() {
		line := strings.TrimSpace(strings.TrimPrefix(sc.Text(), "\ufeff"))
		if line == "" || line[0] == ';' || line[0] == '#' {
			continue
		}
		if line[0] == '[' && line[len(line)-1] == ']' {
			break
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			value = "true"
		}
		key, value = npmUnquote(strings.TrimSpace(key)), npmUnquote(strings.TrimSpace(value))
		if list, ok := strings.CutSuffix(key, "[]"); ok {
			v := out[list]
			v.list = append(v.list, value)
			out[list] = v
			continue
		}
		v := out[key]
		v.text = value
		out[key] = v
	}
	return out, sc.Err()
}

func npmUnquote(s string) string {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		if u, err := strconv.Unquote(s); err == nil {
			return u
		}
		return s[1 : len(s)-1]
	}
	if len(s) >= 2 && s[0] == '\'' && s[len(s)-1] == '\'' {
		return s[1 : len(s)-1]
	}
	for i := 0; i < len(s); i++ { // an unquoted value ends at a comment
		if (s[i] == ';' || s[i] == '#') && (i == 0 || s[i-1] != '\\') {
			return strings.TrimSpace(s[:i])
		}
	}
	return s
}
