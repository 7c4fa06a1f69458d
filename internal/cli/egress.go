package cli

import (
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/egress"
)

// registryVars are the settings of this machine by which package managers find their registries. Programs
// in a sandbox get them, and may reach the hosts in them.
var registryVars = []string{
	"GOPROXY", "GOSUMDB", "GONOSUMDB", "GOPRIVATE", "GONOPROXY", "NPM_CONFIG_REGISTRY", "npm_config_registry", "YARN_NPM_REGISTRY_SERVER",
	"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_INDEX_URL", "UV_DEFAULT_INDEX", "CARGO_REGISTRIES_CRATES_IO_INDEX", "BUNDLE_MIRROR__HTTPS://RUBYGEMS__ORG",
}

type lookupEnv func(string) (string, bool)

// registries gives the variables that are set, and the hosts in them. One with a password in it is left
// out: what is in a sandbox's environment is the agent's to read.
func registries(lookup lookupEnv) (env, hosts []string) {
	for _, name := range registryVars {
		value, ok := lookup(name)
		if !ok || value == "" {
			continue
		}
		var named []string
		private := false
		for _, part := range strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == '|' || r == ' ' }) {
			u, err := url.Parse(strings.TrimPrefix(part, "sparse+"))
			if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
				continue
			}
			private = private || u.User != nil
			named = append(named, u.Host)
		}
		if private {
			continue
		}
		env = append(env, name+"="+value)
		hosts = append(hosts, named...)
	}
	return env, hosts
}

// policy is that of a sandbox without one of its own; nil when sandboxes have no network.
func (n Network) policy(lookup lookupEnv) (*egress.Policy, error) {
	switch n.Mode {
	case "none":
		if len(n.Allow)+len(n.Deny) > 0 {
			return nil, fmt.Errorf("there are rules, but the mode is \"none\": remove one or the other")
		}
		return nil, nil
	case "", "egress":
	default:
		return nil, fmt.Errorf("mode %q: use \"egress\" or \"none\"", n.Mode)
	}
	allow := slices.Clone(n.Allow)
	if !n.NoDefaults {
		_, hosts := registries(lookup)
		allow = slices.Concat(allow, egress.DefaultAllow(), hosts)
	}
	return egress.ParsePolicy(allow, n.Deny)
}

// network completes the recipe of sandboxes with their way out, and makes the keeper of it; nil if there
// is none.
func (c *Config) network(recipe *driver.Spec, lookup lookupEnv, log *slog.Logger) (*egress.Keeper, error) {
	policy, err := c.Network.policy(lookup)
	if err != nil || policy == nil {
		return nil, err
	}
	recipe.Network = driver.NetworkEgress
	if !c.Network.NoDefaults {
		env, _ := registries(lookup)
		recipe.Env = append(recipe.Env, env...)
	}
	// Programs that npm installs for everybody go where the sandbox's user may write, and is on PATH.
	recipe.Env = append(recipe.Env, "NPM_CONFIG_PREFIX=/home/user/.local")
	gate := egress.Config{}
	for _, name := range []string{"HTTPS_PROXY", "https_proxy"} {
		if value, ok := lookup(name); ok && value != "" && gate.Dial == nil {
			u, err := url.Parse(value)
			if err != nil {
				return nil, fmt.Errorf("%s is no URL: correct it or unset it", name)
			}
			if gate.Dial, err = egress.ViaProxy(u); err != nil {
				return nil, err
			}
			gate.Proxied = true
		}
	}
	return egress.NewKeeper(egress.KeeperConfig{Default: policy, Dir: filepath.Join(c.Home, "egress"), Logger: log, Gate: gate}), nil
}
