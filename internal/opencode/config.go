package opencode

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tongs-dev/tongs/internal/modelproxy"
)

// Places in the agent host that the configuration names.
const (
	// DefaultShell is a program that runs nothing where it is, but in the sandbox
	// of a session (package internal/shell). OpenCode runs its own shell commands
	// with it. If the file is missing, OpenCode uses another
	// shell without a word: whoever starts it has to make sure that it is there.
	DefaultShell = "/opt/tongs/bin/tongs-shell"

	// DefaultModelProxy is where OpenCode finds the model proxy.
	DefaultModelProxy = "http://127.0.0.1:4100"
)

// ScriptedProvider and ScriptedModel name the scripted model: tongs/scripted.
const (
	ScriptedProvider = "tongs"
	ScriptedModel    = "scripted"
)

// ConfigureOptions is what a configuration is made from. The zero value is
// usable: the providers for which the environment has a key.
type ConfigureOptions struct {
	// File is an opencode.json of the operator, "" for none. It may have
	// comments and trailing commas; {env:NAME} and {file:path} are expanded in
	// its strings.
	File string

	// Env is where keys and {env:NAME} are looked up, like os.Environ. Default:
	// that of this process.
	Env []string

	// Keys are API keys by provider of modelproxy's table, or of ScriptedProvider. A
	// key in File stands above one in the environment, and that above one in Keys.
	Keys map[string]string

	// Scripted is the base URL of a server that speaks OpenAI's chat
	// completions, offered as tongs/scripted. "" for none.
	Scripted string

	// ScriptedModels are further models of the same server, by id. One whose id ends
	// in "-responses" speaks OpenAI's responses.
	ScriptedModels []string

	// Commands are further slash commands, templates by name. They stand above those
	// of the file.
	Commands map[string]string

	// ModelProxy is the model proxy's URL as OpenCode sees it. Default:
	// DefaultModelProxy.
	ModelProxy string

	// Shell is OpenCode's shell. Default: DefaultShell.
	Shell string

	// AuthFile is OpenCode's own file of logins on this machine; logins in it
	// are not used, and named in Refused. Default: where OpenCode keeps it for
	// the user of Env ($XDG_DATA_HOME or ~/.local/share).
	AuthFile string
}

// Refusal names something of the operator's that is not used, and why.
type Refusal struct {
	Key    string // path in the configuration, e.g. "mcp.playwright"
	Reason string
}

// String is "key: reason".
func (r Refusal) String() string { return r.Key + ": " + r.Reason }

// Configured is a configuration for OpenCode.
type Configured struct {
	// Content is for OPENCODE_CONFIG_CONTENT. No key is in it.
	Content []byte

	// Providers are the upstreams for the model proxy, each with its key.
	Providers []modelproxy.Provider

	// Models are the models that the configuration defines or names.
	Models []Model

	// Refused is to be shown at start.
	Refused []Refusal
}

// ConfigError is what [Configure] returns.
type ConfigError struct {
	File    string // "" if it is not the file's fault
	Message string
	Hint    string
	Err     error
}

// Error says what is wrong and what to do, in one line.
func (e *ConfigError) Error() string {
	s := "configure OpenCode: "
	if e.File != "" {
		s = "read OpenCode's configuration " + e.File + ": "
	}
	s += e.Message
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

// Unwrap returns the cause.
func (e *ConfigError) Unwrap() error { return e.Err }

// configuration is being made.
type configuration struct {
	o       ConfigureOptions
	env     map[string]string
	out     *object
	result  *Configured
	enabled []string // ids of providers, in the order of the file, then of the table
}

// Configure makes OpenCode's configuration: the operator's, less what is
// refused, under what is enforced. Each provider's base URL becomes a path of
// the model proxy, its key and its headers go to Configured.Providers, and
// OpenCode gets modelproxy.Placeholder. A provider is enabled if it has a key
// or does not need one.
//
// What is not known to be harmless is refused, not an error. Errors are of type
// *[ConfigError]: a file that cannot be read or parsed, a provider whose base
// URL or headers cannot be used, a key that the operator put into another
// place.
func Configure(o ConfigureOptions) (*Configured, error) {
	if o.Env == nil {
		o.Env = os.Environ()
	}
	if o.ModelProxy == "" {
		o.ModelProxy = DefaultModelProxy
	}
	if o.Shell == "" {
		o.Shell = DefaultShell
	}
	c := &configuration{o: o, env: map[string]string{}, result: &Configured{}}
	for _, kv := range o.Env {
		if k, v, ok := strings.Cut(kv, "="); ok {
			c.env[k] = v
		}
	}
	if c.o.AuthFile == "" {
		if data := c.env["XDG_DATA_HOME"]; filepath.IsAbs(data) {
			c.o.AuthFile = filepath.Join(data, "opencode", "auth.json")
		} else if home := c.env["HOME"]; filepath.IsAbs(home) {
			c.o.AuthFile = filepath.Join(home, ".local", "share", "opencode", "auth.json")
		}
	}
	in, err := c.read()
	if err != nil {
		return nil, err
	}
	c.out = newObject("$schema", "https://opencode.ai/config.json")
	c.copyAllowed(in)
	if err := c.providers(in); err != nil {
		return nil, err
	}
	c.logins()
	c.commands()
	c.defaults()
	c.enforce()
	c.checkModels()
	if c.result.Content, err = encode(c.out); err != nil {
		return nil, &ConfigError{File: o.File, Message: "it cannot be written as JSON", Err: err}
	}
	return c.result, c.checkContent()
}

func (c *configuration) refuse(key, format string, args ...any) {
	c.result.Refused = append(c.result.Refused, Refusal{key, fmt.Sprintf(format, args...)})
}

// read returns the operator's configuration, expanded.
func (c *configuration) read() (*object, error) {
	if c.o.File == "" {
		return newObject(), nil
	}
	fail := func(message, hint string, err error) (*object, error) {
		return nil, &ConfigError{File: c.o.File, Message: message, Hint: hint, Err: err}
	}
	text, err := readRegular(c.o.File)
	if err != nil {
		return fail("it cannot be read", "check the path given with --opencode-config", err)
	}
	in, err := parseObject(text)
	if err != nil {
		return fail("it is not JSON", "correct it; comments and trailing commas are allowed", err)
	}
	abs, err := filepath.Abs(c.o.File)
	if err != nil {
		return fail("it has no absolute path", "", err)
	}
	e := &expander{env: c.env, dir: filepath.Dir(abs), unset: func(path, name string) {
		c.refuse(path, "the variable %s is not set, so that {env:%s} is empty", name, name)
	}}
	if _, err := e.value(in, ""); err != nil {
		return fail("a file that it names cannot be read", "correct the {file:…}", err)
	}
	return in, nil
}

// checkContent makes sure of what Configured promises.
func (c *configuration) checkContent() error {
	if n := len(c.result.Content); n > maxConfig {
		return &ConfigError{File: c.o.File, Message: fmt.Sprintf("it has %d bytes and %d are possible", n, maxConfig), Hint: "shorten prompts and commands"}
	}
	for _, p := range c.result.Providers {
		secrets := map[string]modelproxy.Secret{"key": p.Key}
		for _, set := range append(slices.Collect(maps.Values(p.ModelHeaders)), p.Headers) {
			for name, v := range set {
				if soundsSecret(name) {
					secrets["header "+name] = v
				}
			}
		}
		for _, what := range sortedKeys(secrets) {
			s := secrets[what].Reveal()
			if len(s) < 8 { // like "public": a word
				continue
			}
			if path := findText(c.out, s, ""); path != "" {
				return &ConfigError{File: c.o.File, Message: fmt.Sprintf("%s holds the %s of the model provider %s, which OpenCode must not see", path, what, p.ID),
					Hint: "take it out there; keys belong into provider.<id>.options.apiKey or the environment"}
			}
		}
	}
	return nil
}

// findText returns the path of the first string, or name, that contains a text.
func findText(v any, text, path string) string {
	switch v := v.(type) {
	case string:
		if strings.Contains(v, text) {
			return path
		}
	case *object:
		for _, m := range v.members {
			if strings.Contains(m.name, text) {
				return join(path, "(a name)")
			}
			if p := findText(m.value, text, join(path, m.name)); p != "" {
				return p
			}
		}
	case []any:
		for i, e := range v {
			if p := findText(e, text, fmt.Sprintf("%s[%d]", path, i)); p != "" {
				return p
			}
		}
	}
	return ""
}

// checkModels takes out the names of models whose provider is not enabled, and
// collects the others.
func (c *configuration) checkModels() {
	check := func(o *object, path, name string) {
		v, ok := o.get(name)
		if !ok {
			return
		}
		s, _ := v.(string)
		provider, model, _ := strings.Cut(s, "/")
		switch {
		case provider == "" || model == "":
			c.refuse(join(path, name), "it must be <provider>/<model>")
		case !slices.Contains(c.enabled, provider):
			c.refuse(join(path, name), "the provider %s is not configured here%s", provider, howToEnable(provider))
		default:
			c.addModel(Model{provider, model})
			return
		}
		o.remove(name)
	}
	check(c.out, "", "model")
	check(c.out, "", "small_model")
	for _, kind := range []string{"agent", "mode", "command"} {
		set := c.out.object(kind)
		if set == nil {
			continue
		}
		for _, m := range set.members {
			if entry, ok := m.value.(*object); ok {
				check(entry, kind+"."+m.name, "model")
			}
		}
	}
	if ids := c.out.object("provider"); ids != nil {
		for _, p := range ids.members {
			if models := p.value.(*object).object("models"); models != nil {
				for _, m := range models.members {
					c.addModel(Model{p.name, m.name})
					if model, ok := m.value.(*object); ok && model.text("id") != "" {
						c.addModel(Model{p.name, model.text("id")}) // OpenCode chooses tools by this one
					}
				}
			}
		}
	}
}

func (c *configuration) addModel(m Model) {
	if !slices.Contains(c.result.Models, m) {
		c.result.Models = append(c.result.Models, m)
	}
}

// howToEnable says what a provider of the table lacks.
func howToEnable(id string) string {
	if k, ok := modelproxy.LookupKnown(id); ok {
		return ": set " + k.Env[0]
	}
	return ""
}
