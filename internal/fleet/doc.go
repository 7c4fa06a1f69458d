// Package fleet knows which sandbox belongs to which OpenCode session and keeps each in the state it
// should be in: made when it is first needed, started again when its guest has ended, reconnected
// when the host was restarted.
//
// One sandbox serves one root session; its children (subagents) use it too. The sandbox in which
// OpenCode itself runs, the agent host, is a member like any other, with a name instead of a session.
package fleet
