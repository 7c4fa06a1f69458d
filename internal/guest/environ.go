package guest

import (
	"fmt"
	"slices"
	"strings"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// baseEnviron is the environment that every command begins with.
func (c *Config) baseEnviron() []string {
	env := slices.Clone(c.Env)
	for _, kv := range []string{
		"HOME=" + c.User.Home, "USER=" + c.User.Name, "LOGNAME=" + c.User.Name, "SHELL=" + c.User.Shell,
		"PATH=" + defaultPath, "LANG=C.UTF-8", "TMPDIR=/tmp",
	} {
		key, _, _ := strings.Cut(kv, "=")
		if !slices.ContainsFunc(env, func(have string) bool { return strings.HasPrefix(have, key+"=") }) {
			env = append(env, kv)
		}
	}
	return env
}

// environ is the base environment with a command's own changes.
func (g *engine) environ(set map[string]string, unset []string, root, terminal bool) ([]string, error) {
	env := g.cfg.baseEnviron()
	drop := func(key string) {
		env = slices.DeleteFunc(env, func(kv string) bool { return strings.HasPrefix(kv, key+"=") })
	}
	if root {
		drop("HOME")
		env = append(env, "HOME=/root")
	}
	if terminal && getenv(env, "TERM") == "" {
		drop("TERM")
		env = append(env, "TERM=xterm-256color")
	}
	for _, key := range unset {
		drop(key)
	}
	keys := make([]string, 0, len(set))
	for key := range set {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		if err := checkVariable(key, set[key]); err != nil {
			return nil, err
		}
		drop(key)
		env = append(env, key+"="+set[key])
	}
	return env, nil
}

func checkVariable(key, value string) error {
	if key == "" || strings.ContainsAny(key, "=\x00") || strings.IndexByte(value, 0) >= 0 {
		return invalid("%s is not a variable: a name has no '=', and neither name nor value a NUL byte", fmt.Sprintf("%.40q", key))
	}
	return nil
}

func getenv(env []string, key string) string {
	for _, kv := range slices.Backward(env) {
		if v, ok := strings.CutPrefix(kv, key+"="); ok {
			return v
		}
	}
	return ""
}
