package opencode

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"path"
	"reflect"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/tongs-dev/tongs/plugin"
	"github.com/tongs-dev/tongs/sandbox"
)

// families has one model of each kind that OpenCode 1.18 offers different tools
// to: it goes by "gpt-", "oss" and "gpt-4" in the model's id, and offers a web
// search to models of provider opencode.
var families = []Model{
	{"opencode", "gpt-5"},
	{"opencode", "gpt-4.1"},
	{"opencode", "gpt-oss-120b"},
	{"opencode", "claude-sonnet-4-5"},
}

// harmless are OpenCode's own tools that touch neither files nor processes nor
// the network of the agent host. The plugin lets no other one be called.
var harmless = map[string]bool{"invalid": true, "question": true, "skill": true, "task": true, "todowrite": true}

// offered is a tool as OpenCode offers it to a model.
type offered struct {
	ID          string          `json:"id"`
	Description string          `json:"description"`
	Parameters  json.RawMessage `json:"parameters"`
}

// rule is one permission rule. Of those that match, the last one holds.
type rule struct {
	Permission string `json:"permission"`
	Pattern    string `json:"pattern"`
	Action     string `json:"action"`
}

type agent struct {
	Name       string `json:"name"`
	Permission []rule `json:"permission"`
}

// checkPlugins reads back the configuration: our plugin must be there, and no
// other one, and no MCP server. It is the first request that names a directory,
// and so the one that makes OpenCode load the plugin.
func (h *Host) checkPlugins(ctx context.Context) error {
	var config struct {
		Plugin []json.RawMessage          `json:"plugin"`
		MCP    map[string]json.RawMessage `json:"mcp"`
	}
	if err := h.getJSON(ctx, "/config", nil, &config); err != nil {
		return h.withLastWords(ctx, "its project cannot be opened", err)
	}
	return checkConfig(config.Plugin, config.MCP, path.Join(h.configDir(), "plugins", plugin.FileName))
}

// checkTools reads back the tools that OpenCode offers, for a model of each
// family and each configured one. Every tool that acts must be ours, or be
// denied to every agent.
func (h *Host) checkTools(ctx context.Context) error {
	var agents []agent
	if err := h.getJSON(ctx, "/agent", nil, &agents); err != nil {
		return startupError(ctx, "its agents cannot be read back", err)
	}
	ours, err := plugin.Tools()
	if err != nil {
		return err
	}
	models := slices.Concat(families, h.cfg.Models, namedModels(h.cfg.Content))
	checked := map[Model]bool{}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for _, m := range models {
		if checked[m] {
			continue
		}
		checked[m] = true
		group.Go(func() error {
			var tools []offered
			query := url.Values{"provider": {m.Provider}, "model": {m.ID}}
			if err := h.getJSON(groupCtx, "/experimental/tool", query, &tools); err != nil {
				return startupError(ctx, fmt.Sprintf("its tools for %s/%s cannot be read back", m.Provider, m.ID), err)
			}
			return checkTools(m, tools, ours, agents)
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return nil
}

// maxNamed bounds how many models of a configuration are checked. OpenCode goes
// by patterns in their ids, and families has one of each.
const maxNamed = 32

// namedModels are the models that a configuration names, sorted.
func namedModels(content []byte) []Model {
	var config struct {
		Model    string `json:"model"`
		Small    string `json:"small_model"`
		Provider map[string]struct {
			Models map[string]json.RawMessage `json:"models"`
		} `json:"provider"`
	}
	if json.Unmarshal(content, &config) != nil {
		return nil
	}
	var models []Model
	for _, name := range []string{config.Model, config.Small} {
		if provider, id, ok := strings.Cut(name, "/"); ok {
			models = append(models, Model{provider, id})
		}
	}
	for _, provider := range slices.Sorted(maps.Keys(config.Provider)) {
		for _, id := range slices.Sorted(maps.Keys(config.Provider[provider].Models)) {
			models = append(models, Model{provider, id})
		}
	}
	return models[:min(len(models), maxNamed)]
}

func notOurs(message, hint string) error {
	return sandbox.Errf(CodeToolNotOurs, "check OpenCode's tools", message, hint)
}

func checkConfig(plugins []json.RawMessage, mcp map[string]json.RawMessage, file string) error {
	for _, entry := range plugins {
		var spec string
		if json.Unmarshal(entry, &spec) != nil || spec != (&url.URL{Scheme: "file", Path: file}).String() {
			return notOurs(fmt.Sprintf("OpenCode has loaded a plugin that is not ours: %.200s", entry),
				"take it out of OpenCode's configuration; if it is not there, destroy the agent host: something has been put into it")
		}
	}
	if len(plugins) == 0 {
		return notOurs("OpenCode has not loaded the plugin, so its tools would run in the agent host", "look at OpenCode's log for the reason")
	}
	for name := range mcp {
		return notOurs(fmt.Sprintf("OpenCode has an MCP server, %q, whose tools would run in the agent host", name), "take it out of OpenCode's configuration")
	}
	return nil
}

// checkTools checks what one model is offered. When an id is there more than
// once the last one holds.
func checkTools(m Model, tools []offered, ours []plugin.Tool, agents []agent) error {
	last := map[string]offered{}
	for _, t := range tools {
		last[t.ID] = t
	}
	where := fmt.Sprintf("for models like %s/%s", m.Provider, m.ID)
	patches := last["apply_patch"].ID != "" // instead of edit and write
	own := map[string]plugin.Tool{}
	for _, t := range ours {
		own[t.ID] = t
		unused := t.ID == "apply_patch" && !patches || (t.ID == "edit" || t.ID == "write") && patches
		if _, ok := last[t.ID]; !ok && !unused {
			return notOurs(fmt.Sprintf("the tool %s is missing %s", t.ID, where), "use the OpenCode version that this Tongs was made for")
		}
	}
	for _, id := range slices.Sorted(maps.Keys(last)) {
		t := last[id]
		if our, ok := own[id]; ok {
			if t.Description != our.Description || !sameSchema(t.Parameters, our.Parameters) {
				return notOurs(fmt.Sprintf("the tool %s %s is not the one that runs in the sandbox", id, where),
					"look for another plugin or tool of that name in OpenCode's configuration")
			}
			continue
		}
		if harmless[id] {
			continue
		}
		if len(agents) == 0 {
			return notOurs(fmt.Sprintf("the tool %s %s would run in the agent host, and there are no agents to which it could be denied", id, where), "")
		}
		for _, a := range agents {
			if !denied(id, a.Permission) {
				return notOurs(fmt.Sprintf("the tool %s %s would run in the agent host and is not denied to the agent %q", id, where, a.Name),
					fmt.Sprintf(`set "permission": {"%s": "deny"} in OpenCode's configuration`, id))
			}
		}
	}
	return nil
}

// denied tells whether OpenCode takes the tool away from an agent with these
// rules: the last rule for the tool's permission denies all of it.
func denied(tool string, rules []rule) bool {
	permission := tool
	switch tool {
	case "edit", "write", "apply_patch":
		permission = "edit"
	case "list_mcp_resources", "list_mcp_resource_templates", "read_mcp_resource":
		permission = "read"
	}
	for _, r := range slices.Backward(rules) {
		if wildcard(r.Permission, permission) {
			return r.Pattern == "*" && r.Action == "deny"
		}
	}
	return false
}

// wildcard matches a pattern in which * stands for any text and ? for any one
// character.
func wildcard(pattern, text string) bool {
	p, t, star, mark := 0, 0, -1, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, t
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == text[t]):
			p++
			t++
		case star >= 0:
			mark++
			p, t = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// sameSchema compares JSON schemas, apart from the name of the dialect. The list
// of required properties is a set, and none is an empty one.
func sameSchema(a, b json.RawMessage) bool {
	read := func(text json.RawMessage) (any, bool) {
		var v map[string]any
		dec := json.NewDecoder(bytes.NewReader(text))
		dec.UseNumber()
		if dec.Decode(&v) != nil {
			return nil, false
		}
		delete(v, "$schema")
		required := map[any]bool{}
		if list, ok := v["required"].([]any); ok {
			for _, name := range list {
				if text, ok := name.(string); ok {
					required[text] = true
				}
			}
		}
		v["required"] = required
		return v, true
	}
	x, okX := read(a)
	y, okY := read(b)
	return okX && okY && reflect.DeepEqual(x, y)
}
