package opencode

import (
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/tongs-dev/tongs/internal/modelproxy"
)

const defaultSDK = "@ai-sdk/openai-compatible"

// sdks are the packages that are in OpenCode's binary and need no more than a
// base URL and a key, with the header in which each sends it. Any other would
// be installed from a package registry or run from a file.
var sdks = map[string]modelproxy.AuthScheme{
	defaultSDK:                    modelproxy.Bearer,
	"@ai-sdk/openai":              modelproxy.Bearer,
	"@ai-sdk/anthropic":           modelproxy.XAPIKey,
	"@ai-sdk/google":              modelproxy.XGoogAPIKey,
	"@openrouter/ai-sdk-provider": modelproxy.Bearer,
	"@ai-sdk/xai":                 modelproxy.Bearer,
	"@ai-sdk/mistral":             modelproxy.Bearer,
	"@ai-sdk/groq":                modelproxy.Bearer,
	"@ai-sdk/deepinfra":           modelproxy.Bearer,
	"@ai-sdk/cerebras":            modelproxy.Bearer,
	"@ai-sdk/cohere":              modelproxy.Bearer,
	"@ai-sdk/togetherai":          modelproxy.Bearer,
	"@ai-sdk/perplexity":          modelproxy.Bearer,
	"@ai-sdk/alibaba":             modelproxy.Bearer,
}

// unsupported are providers that need more than a key.
var unsupported = map[string]string{
	"amazon-bedrock": "Amazon Bedrock", "google-vertex": "Google Vertex", "google-vertex-anthropic": "Google Vertex",
	"azure": "Azure", "azure-cognitive-services": "Azure",
	"github-copilot": "GitHub Copilot (a login by OAuth)", "github-copilot-enterprise": "GitHub Copilot (a login by OAuth)",
	"gitlab": "GitLab Duo (a login by OAuth)", "sap-ai-core": "SAP AI Core",
	"cloudflare-ai-gateway": "Cloudflare AI Gateway", "cloudflare-workers-ai": "Cloudflare Workers AI", "vercel": "Vercel AI Gateway",
}

// unsupportedSDKs are the same by package.
var unsupportedSDKs = map[string]string{
	"@ai-sdk/amazon-bedrock": "Amazon Bedrock", "@ai-sdk/amazon-bedrock/mantle": "Amazon Bedrock",
	"@ai-sdk/google-vertex": "Google Vertex", "@ai-sdk/google-vertex/anthropic": "Google Vertex",
	"@ai-sdk/azure": "Azure", "@ai-sdk/github-copilot": "GitHub Copilot (a login by OAuth)", "gitlab-ai-provider": "GitLab Duo (a login by OAuth)",
}

// sdkOptions are the options with a string value that may go to OpenCode.
// Numbers and booleans may all.
var sdkOptions = []string{"organization", "project", "compatibility", "name"}

// providers routes the operator's providers and those of the table.
func (c *configuration) providers(in *object) error {
	only, hasOnly := c.names(in, "enabled_providers")
	without, _ := c.names(in, "disabled_providers")
	wanted := func(id string) bool {
		return (!hasOnly || slices.Contains(only, id)) && !slices.Contains(without, id)
	}
	out := newObject()
	if v, ok := in.get("provider"); ok {
		set, ok := c.objectOr(v, "provider")
		if !ok {
			set = newObject()
		}
		for _, m := range set.members {
			if !wanted(m.name) {
				continue
			}
			entry, ok := c.objectOr(m.value, "provider."+m.name)
			if !ok {
				continue
			}
			if err := c.provider(out, m.name, entry); err != nil {
				return err
			}
		}
	}
	for _, known := range modelproxy.KnownProviders() {
		if _, done := out.get(known.ID); done || !wanted(known.ID) || slices.ContainsFunc(c.result.Refused, func(r Refusal) bool { return r.Key == "provider."+known.ID }) {
			continue
		}
		if err := c.provider(out, known.ID, newObject()); err != nil {
			return err
		}
	}
	if c.o.Scripted != "" {
		if err := c.scripted(out); err != nil {
			return err
		}
	}
	c.out.set("provider", out)
	return nil
}

// names reads a list of provider ids.
func (c *configuration) names(in *object, key string) ([]string, bool) {
	v, ok := in.get(key)
	if !ok {
		return nil, false
	}
	list, ok := v.([]any)
	if !ok {
		c.refuse(key, "it must be a list of provider ids")
		return nil, false
	}
	var ids []string
	for _, e := range list {
		if s, ok := e.(string); ok {
			ids = append(ids, s)
		}
	}
	return ids, true
}

// provider routes one provider through the proxy, or names it as refused.
func (c *configuration) provider(out *object, id string, entry *object) error {
	path := "provider." + id
	known, isKnown := modelproxy.LookupKnown(id)
	fail := func(message, hint string) error {
		return &ConfigError{File: c.o.File, Message: path + ": " + message, Hint: hint}
	}
	if what, ok := unsupported[id]; ok {
		c.refuse(path, "%s is not supported yet", what)
		return nil
	}
	if !modelproxy.ValidID(id) {
		c.refuse(path, "an id may have letters, digits, '.', '_' and '-' only")
		return nil
	}
	if id == ScriptedProvider {
		c.refuse(path, "this id is Tongs' own")
		return nil
	}
	scheme, ok := c.sdk(path, entry, known, isKnown)
	if !ok {
		return nil
	}
	options := entry.object("options")
	if options == nil {
		options = newObject()
	}

	p := modelproxy.Provider{ID: id, Auth: scheme}
	// The key: of the file, of the environment, of the other configuration.
	key := options.text("apiKey")
	if token := options.text("authToken"); token != "" {
		key, p.Auth = token, modelproxy.Bearer
	}
	variables := known.Env
	if list, ok := entry.get("env"); ok {
		variables = nil
		if list, ok := list.([]any); ok {
			for _, v := range list {
				if s, ok := v.(string); ok {
					variables = append(variables, s)
				}
			}
		}
	}
	for _, name := range variables {
		if key == "" {
			key = strings.TrimSpace(c.env[name])
		}
	}
	if key == "" {
		key = c.o.Keys[id]
	}
	if isKnown && key == known.PublicKey {
		key = ""
	}
	p.Key = modelproxy.NewSecret(key)

	// The base URL.
	base := options.text("baseURL")
	if base == "" {
		base = entry.text("api")
	}
	switch {
	case base != "":
		u, err := url.Parse(base)
		if err != nil || strings.Contains(base, "${") {
			return fail("the base URL cannot be used", "write it like http://127.0.0.1:11434/v1, with {env:NAME} for variables")
		}
		p.Upstream, p.Operator = u, true
	case isKnown:
		p.Upstream = known.Provider(p.Key).Upstream
		if p.Key.IsZero() && known.PublicKey == "" {
			if len(entry.members) > 0 {
				c.refuse(path, "there is no key for it%s", howToEnable(id))
			}
			return nil
		}
		if p.Key.IsZero() {
			p.Key = known.Provider(p.Key).Key
		}
	default:
		c.refuse(path, "its base URL is not known here: add options.baseURL")
		return nil
	}

	p.Headers = c.headers(path+".options", options)
	p.ModelHeaders = c.modelHeaders(path, entry)
	if err := p.Validate(); err != nil {
		return fail("it cannot be used", err.Error())
	}
	c.result.Providers = append(c.result.Providers, p)
	c.enabled = append(c.enabled, id)

	// What OpenCode gets.
	c.options(path, options)
	options.put("baseURL", c.baseURL(id))
	if !isKnown || key != "" { // with a key, OpenCode would offer the models that cost, too
		options.put("apiKey", modelproxy.Placeholder)
	}
	for _, name := range []string{"env", "api", "id"} {
		entry.remove(name)
	}
	for _, m := range slices.Clone(entry.members) {
		if !slices.Contains([]string{"name", "npm", "whitelist", "blacklist", "options", "models"}, m.name) {
			c.refuse(path+"."+m.name, "this version does not know it")
			entry.remove(m.name)
		}
	}
	entry.set("options", options)
	out.set(id, entry)
	return nil
}

// baseURL is a provider's base URL as OpenCode sees it.
func (c *configuration) baseURL(id string) string {
	return strings.TrimSuffix(c.o.ModelProxy, "/") + "/" + id
}

// sdk returns how the provider's SDK sends its key; ok is false if it was refused.
func (c *configuration) sdk(path string, entry *object, known modelproxy.Known, isKnown bool) (scheme modelproxy.AuthScheme, ok bool) {
	check := func(key, name string) (modelproxy.AuthScheme, bool) {
		if what, bad := unsupportedSDKs[name]; bad {
			c.refuse(key, "%s is not supported yet", what)
			return 0, false
		}
		s, ok := sdks[name]
		if !ok {
			c.refuse(key, "the package %q is not in OpenCode: it would be fetched and run beside it (%s is there)", name, defaultSDK)
		}
		return s, ok
	}
	scheme = modelproxy.Bearer
	if isKnown {
		scheme = known.Auth
	}
	if v, set := entry.get("npm"); set {
		name, _ := v.(string)
		s, ok := check(path, name)
		if !ok {
			return 0, false
		}
		if isKnown && s != scheme {
			s = modelproxy.ByPath // the models of OpenCode's catalogue keep their own protocol
		}
		scheme = s
	}
	models := entry.object("models")
	if models == nil {
		return scheme, true
	}
	for _, m := range slices.Clone(models.members) {
		key := path + ".models." + m.name
		model, ok := m.value.(*object)
		if !ok {
			c.refuse(key, "it must be an object")
			models.remove(m.name)
			continue
		}
		provider := model.object("provider")
		if provider == nil {
			continue
		}
		if api, ok := provider.get("api"); ok && api != "" {
			c.refuse(key, "a model cannot have a base URL of its own: make it a provider of its own")
			models.remove(m.name)
			continue
		}
		if name := provider.text("npm"); name != "" {
			s, ok := check(key, name)
			if !ok {
				models.remove(m.name)
				continue
			}
			if s != scheme {
				scheme = modelproxy.ByPath // several protocols under one base URL
			}
		}
	}
	return scheme, true
}

// headers takes the member "headers" out of o.
func (c *configuration) headers(path string, o *object) map[string]modelproxy.Secret {
	v, ok := o.get("headers")
	if !ok {
		return nil
	}
	o.remove("headers")
	set, ok := c.objectOr(v, path+".headers")
	if !ok {
		return nil
	}
	headers := map[string]modelproxy.Secret{}
	for _, m := range set.members {
		if s, ok := m.value.(string); ok {
			headers[m.name] = modelproxy.NewSecret(s)
		} else {
			c.refuse(path+".headers."+m.name, "it must be a string")
		}
	}
	return headers
}

// modelHeaders takes the headers out of each model. They belong to the name
// that the model has in requests.
func (c *configuration) modelHeaders(path string, entry *object) map[string]map[string]modelproxy.Secret {
	models := entry.object("models")
	if models == nil {
		return nil
	}
	all := map[string]map[string]modelproxy.Secret{}
	for _, m := range models.members {
		model, ok := m.value.(*object)
		if !ok {
			continue
		}
		name := m.name
		if id := model.text("id"); id != "" {
			name = id
		}
		headers := c.headers(path+".models."+m.name, model)
		if len(headers) == 0 {
			continue
		}
		if all[name] == nil {
			all[name] = map[string]modelproxy.Secret{}
		}
		maps.Copy(all[name], headers)
	}
	return all
}

// options takes out of an SDK's options what may not go to OpenCode.
func (c *configuration) options(path string, options *object) {
	for _, m := range slices.Clone(options.members) {
		switch m.value.(type) {
		case bool, number:
			continue
		case string:
			if slices.Contains(sdkOptions, m.name) {
				continue
			}
		}
		options.remove(m.name)
		if m.name != "apiKey" && m.name != "baseURL" && m.name != "authToken" {
			c.refuse(path+".options."+m.name, "it is not known to be harmless")
		}
	}
}

// scripted offers tongs/scripted.
func (c *configuration) scripted(out *object) error {
	u, err := url.Parse(c.o.Scripted)
	if err != nil {
		return &ConfigError{Message: "the URL of the scripted model is none", Err: err}
	}
	p := modelproxy.Provider{ID: ScriptedProvider, Upstream: u, Operator: true, Key: modelproxy.NewSecret(c.o.Keys[ScriptedProvider])}
	if err := p.Validate(); err != nil {
		return &ConfigError{Message: "the scripted model cannot be used", Err: err}
	}
	c.result.Providers = append(c.result.Providers, p)
	c.enabled = append(c.enabled, ScriptedProvider)
	models := newObject()
	for _, id := range append([]string{ScriptedModel}, c.o.ScriptedModels...) {
		name := "Scripted"
		if id != ScriptedModel {
			name += ", as " + id
		}
		model := newObject("name", name, "tool_call", true, "attachment", true,
			"limit", newObject("context", number("200000"), "output", number("8192")))
		if strings.HasSuffix(id, "-responses") {
			model.put("provider", newObject("npm", "@ai-sdk/openai"))
		}
		models.put(id, model)
	}
	out.set(ScriptedProvider, newObject(
		"npm", defaultSDK, "name", "Tongs",
		"options", newObject("baseURL", c.baseURL(ScriptedProvider), "apiKey", modelproxy.Placeholder),
		"models", models,
	))
	return nil
}

// commands adds the slash commands that are not of the file.
func (c *configuration) commands() {
	if len(c.o.Commands) == 0 {
		return
	}
	set := c.out.object("command")
	if set == nil {
		set = newObject()
		c.out.put("command", set)
	}
	for _, name := range sortedKeys(c.o.Commands) {
		set.put(name, newObject("template", c.o.Commands[name]))
	}
}

// soundsSecret tells by the name of a header whether its value is a credential.
func soundsSecret(name string) bool {
	name = strings.ToLower(name)
	return slices.ContainsFunc([]string{"auth", "key", "token", "secret", "cookie", "password"}, func(w string) bool { return strings.Contains(name, w) })
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
