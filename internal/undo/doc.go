// Package undo makes undo, redo, diffs and forks of a session work on the files of its sandbox.
//
// OpenCode marks messages as reverted and copies conversations; what the conversation did to files it cannot know,
// since they are in a sandbox. So the state of the project is kept before the first tool of each step that may
// change something, and when the step's tools have ended ([Manager.Step]). A step is one message of an agent, subagents' included.
// Undoing a step gives each file that the step changed the content that it had before.
//
// States are kept in the sandbox under the ids of messages (package snapshot), so they last as long as its files do, and
// a copy of the sandbox has them too.
package undo
