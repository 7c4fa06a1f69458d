package plugin

import (
	_ "embed"
	"encoding/json"
	"fmt"
)

// FileName is the name under which the bundle belongs into a plugins directory
// of OpenCode's configuration.
const FileName = "tongs.js"

// Environment variables by which the host configures the plugin. They are read
// when OpenCode loads it.
const (
	// EnvPort is the loopback port on which the plugin waits for the host; 3001 if unset.
	EnvPort = "TONGS_BRIDGE_PORT"
	// EnvTokenFile is the file with the token that the host must present, at
	// least 16 bytes. It is read at every connection. Default /opt/tongs/bridge.token.
	EnvTokenFile = "TONGS_BRIDGE_TOKEN_FILE"
	// EnvProject is the project's directory in every sandbox, which the model is
	// told. Default /home/user/project.
	EnvProject = "TONGS_PROJECT"
	// EnvWaitMS is how many milliseconds one call may be without a connection to
	// the host before it fails; 60000 if unset.
	EnvWaitMS = "TONGS_BRIDGE_WAIT_MS"
)

//go:embed dist/tongs.js
var bundle []byte

//go:embed tools.json
var toolsJSON []byte

// Tool is one tool that the plugin declares to OpenCode.
type Tool struct {
	// ID is the tool's name; those of built-in tools take their place.
	ID string `json:"id"`
	// Description is what the model reads about the tool.
	Description string `json:"description"`
	// Parameters is the JSON schema of the tool's arguments.
	Parameters json.RawMessage `json:"parameters"`
	// Permission is the name of the permission that the tool asks for.
	Permission string `json:"permission"`
}

// Bundle returns the plugin: one ECMAScript module without imports other than
// those of OpenCode's own runtime.
func Bundle() []byte {
	return append([]byte(nil), bundle...)
}

// Tools returns the tools that the plugin declares, in the order of tools.json.
func Tools() ([]Tool, error) {
	var tools []Tool
	if err := json.Unmarshal(toolsJSON, &tools); err != nil {
		return nil, fmt.Errorf("plugin: tools.json in this binary cannot be read, build it again: %w", err)
	}
	return tools, nil
}
