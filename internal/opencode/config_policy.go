package opencode

import (
	"encoding/json"
	"slices"

	"github.com/tongs-dev/tongs/internal/modelproxy"
)

// deniedTools are tools, and the permissions of tools, that act from the agent
// host and are not carried out in a sandbox. They are denied to every agent.
var deniedTools = []string{
	"websearch", "codesearch", "lsp", "skill", "execute", "plan_exit",
	"list_mcp_resources", "list_mcp_resource_templates", "read_mcp_resource",
}

// topLevel says what becomes of each key of OpenCode 1.18's configuration: ""
// to copy it, else why it is refused. Keys that are not here are refused, too.
// Those that are looked into have a function in copyAllowed.
var topLevel = map[string]string{
	"model": "", "small_model": "", "default_agent": "", "subagent_depth": "", "username": "", "logLevel": "",
	"layout": "", "attachment": "", "compaction": "",
	"agent": "", "mode": "", "command": "", "permission": "", "tools": "", "experimental": "",

	"shell":      "commands of OpenCode itself run in the session's sandbox, through a shell of Tongs",
	"server":     "the address and port of OpenCode are set by Tongs: use --listen",
	"plugin":     "a plugin would run beside OpenCode and not in a sandbox",
	"mcp":        "MCP servers would run beside OpenCode and not in a sandbox",
	"formatter":  "formatters would run beside OpenCode and not in a sandbox",
	"lsp":        "language servers would run beside OpenCode and not in a sandbox",
	"skills":     "skills would be read beside OpenCode and not in a sandbox",
	"reference":  "references would be cloned beside OpenCode and not in a sandbox",
	"references": "references would be cloned beside OpenCode and not in a sandbox",
	"instructions": "files and addresses of instructions would be read beside OpenCode and not in a sandbox: " +
		"put the text into an agent's prompt",
	"watcher":     "OpenCode has no files to watch",
	"snapshot":    "OpenCode's snapshots see nothing of a sandbox",
	"share":       "sharing would send conversations to another server",
	"autoshare":   "sharing would send conversations to another server",
	"autoupdate":  "the version of OpenCode is pinned",
	"enterprise":  "it would send conversations to another server",
	"tool_output": "the tools in the sandbox cut their output themselves and keep the whole of it there",
}

// enforced are values of the operator's that mean what is enforced anyway, so
// that nothing need be said.
var enforced = map[string][]any{
	"autoupdate": {false}, "share": {"disabled"}, "snapshot": {false}, "lsp": {false}, "formatter": {false}, "autoshare": {false},
}

// experimentalKeys are the members of "experimental" that are copied.
var experimentalKeys = []string{"disable_paste_summary", "continue_loop_on_deny", "primary_tools", "policies"}

// copyAllowed copies what may be copied and names the rest.
func (c *configuration) copyAllowed(in *object) {
	for _, m := range in.members {
		switch m.name {
		case "$schema", "provider", "enabled_providers", "disabled_providers":
			continue // our own, and in providers
		}
		reason, known := topLevel[m.name]
		switch {
		case slices.Contains(enforced[m.name], m.value), isEmpty(m.value):
		case !known:
			c.refuse(m.name, "this version does not know it")
		case reason != "":
			c.refuseEach(m.name, m.value, reason)
		case m.name == "agent" || m.name == "mode":
			c.eachObject(m, c.agent)
		case m.name == "command":
			c.eachObject(m, nil) // what a template runs, it runs in the sandbox of the session that uses it
		case m.name == "permission":
			c.out.set(m.name, c.permission(m.value, m.name))
		case m.name == "tools":
			if o, ok := c.objectOr(m.value, m.name); ok {
				c.tools(o, m.name)
				c.out.set(m.name, o)
			}
		case m.name == "experimental":
			if o, ok := c.objectOr(m.value, m.name); ok {
				for _, e := range slices.Clone(o.members) {
					if !slices.Contains(experimentalKeys, e.name) {
						c.refuse("experimental."+e.name, "it is not allowed here")
						o.remove(e.name)
					}
				}
				c.out.set(m.name, o)
			}
		default:
			c.out.set(m.name, m.value)
		}
	}
}

func isEmpty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case *object:
		return len(v.members) == 0
	case []any:
		return len(v) == 0
	}
	return false
}

// refuseEach names each member of an object, or the value itself.
func (c *configuration) refuseEach(key string, v any, reason string) {
	o, ok := v.(*object)
	if !ok || key != "mcp" && key != "formatter" && key != "lsp" && key != "reference" && key != "references" {
		c.refuse(key, "%s", reason)
		return
	}
	for _, m := range o.members {
		c.refuse(key+"."+m.name, "%s", reason)
	}
}

func (c *configuration) objectOr(v any, key string) (*object, bool) {
	o, ok := v.(*object)
	if !ok {
		c.refuse(key, "it must be an object")
	}
	return o, ok
}

// eachObject copies a set of named objects after a look at each, if there is one.
func (c *configuration) eachObject(m member, look func(o *object, path string) bool) {
	set, ok := c.objectOr(m.value, m.name)
	if !ok {
		return
	}
	for _, e := range slices.Clone(set.members) {
		path := m.name + "." + e.name
		o, ok := c.objectOr(e.value, path)
		if !ok || look != nil && !look(o, path) {
			set.remove(e.name)
		}
	}
	c.out.set(m.name, set)
}

// agent looks at one agent. What an agent is allowed stands above what all are
// allowed, so that the denials have to be in each.
func (c *configuration) agent(o *object, path string) bool {
	if v, ok := o.get("permission"); ok {
		o.set("permission", deny(c.permission(v, path+".permission")))
	}
	if v, ok := o.get("tools"); ok {
		tools, ok := c.objectOr(v, path+".tools")
		if !ok {
			return false
		}
		c.tools(tools, path+".tools")
		// OpenCode turns these into permissions of the agent.
		p, ok := o.get("permission")
		if !ok {
			p = newObject()
		}
		o.set("permission", deny(asRules(p)))
	}
	return true
}

// permission names the rules of denied tools and takes them out.
func (c *configuration) permission(v any, path string) any {
	o, ok := v.(*object)
	if !ok {
		return v
	}
	for _, tool := range deniedTools {
		if rule, ok := o.get(tool); ok {
			if rule != "deny" {
				c.refuse(path+"."+tool, "this tool is denied: it would not run in a sandbox")
			}
			o.remove(tool)
		}
	}
	return o
}

// tools does the same for the older way to say it.
func (c *configuration) tools(o *object, path string) {
	for _, tool := range deniedTools {
		if on, ok := o.get(tool); ok {
			if on != false {
				c.refuse(path+"."+tool, "this tool is denied: it would not run in a sandbox")
			}
			o.remove(tool)
		}
	}
}

// asRules returns a permission as an object of rules.
func asRules(v any) *object {
	switch v := v.(type) {
	case *object:
		return v
	case string:
		return newObject("*", v)
	}
	return newObject()
}

// deny adds the denials behind the rules of a permission.
func deny(v any) *object {
	o := asRules(v)
	for _, tool := range deniedTools {
		o.put(tool, "deny")
	}
	return o
}

// defaults sets what the operator has left open and OpenCode would decide otherwise.
func (c *configuration) defaults() {
	// OpenCode asks before a tool leaves the project. What is outside it here is the rest of the
	// session's own sandbox, and a question to nobody would stop the turn. Rules of the operator
	// come behind it and win.
	v, _ := c.out.get("permission")
	rules := newObject("external_directory", "allow")
	for _, m := range asRules(v).members {
		rules.put(m.name, m.value)
	}
	c.out.put("permission", rules)

	// Who asks for the scripted model and has set up no other one means to use it.
	if c.o.Scripted == "" {
		return
	}
	for _, p := range c.result.Providers {
		known, _ := modelproxy.LookupKnown(p.ID)
		keyless := known.PublicKey != "" && known.PublicKey == p.Key.Reveal()
		if p.ID != ScriptedProvider && !keyless {
			return
		}
	}
	for _, name := range []string{"model", "small_model"} {
		if _, ok := c.out.get(name); !ok {
			c.out.put(name, ScriptedProvider+"/"+ScriptedModel)
		}
	}
}

// enforce sets what holds whatever the operator says. tool_output is the longest
// answer that the sandbox's tools give, so that none is cut a second time.
func (c *configuration) enforce() {
	v, _ := c.out.get("permission")
	c.out.put("permission", deny(v))
	for _, m := range []member{
		{"autoupdate", false}, {"share", "disabled"}, {"snapshot", false}, {"lsp", false}, {"formatter", false}, {"shell", c.o.Shell},
		{"tool_output", newObject("max_lines", number("4000"), "max_bytes", number("200000"))},
	} {
		c.out.put(m.name, m.value)
	}
	ids := make([]any, len(c.enabled))
	for i, id := range c.enabled {
		ids[i] = id
	}
	c.out.put("enabled_providers", ids)
}

// logins names the logins that OpenCode has on this machine.
func (c *configuration) logins() {
	if c.o.AuthFile == "" {
		return
	}
	text, err := readRegular(c.o.AuthFile)
	if err != nil {
		return // there are none, or they are not ours to read
	}
	var logins map[string]struct {
		Type string `json:"type"`
	}
	if json.Unmarshal(text, &logins) != nil {
		return
	}
	for _, id := range sortedKeys(logins) {
		switch kind := logins[id].Type; kind {
		case "api":
			if !slices.Contains(c.enabled, id) {
				c.refuse("login "+id, "keys saved by OpenCode are not used: set the provider's environment variable")
			}
		default:
			c.refuse("login "+id, "a login by %s is not supported yet: use an API key", map[string]string{"oauth": "OAuth", "wellknown": "a company's server"}[kind])
		}
	}
}
