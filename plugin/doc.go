// Package plugin holds the plugin that Tongs gives to OpenCode, ready to be put
// into the agent host, and the list of the tools that it declares.
//
// The plugin is TypeScript (src/), bundled into one file (dist/tongs.js) that
// needs nothing from a package registry. It declares OpenCode's file and command
// tools under their own names, so that they take the place of the built-in ones,
// and carries each call to the host over one Cap'n Web connection. The host
// dials in: the plugin listens on a loopback port of the agent host and asks for
// a token.
//
// The bundle is committed, so that a Go build needs no Node.js. After a change
// in src/ or tools.json, "npm ci && npm run build" in this directory makes it anew.
package plugin
