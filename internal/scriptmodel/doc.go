// Package scriptmodel is a language model that does what a script says. It
// speaks the two protocols of OpenAI's API that OpenCode's providers use, chat
// completions and responses, streamed and whole, so that a demo, a self-check
// or a test can make an agent do anything without a model, a key or a network.
//
// # Scripts
//
// A prompt carries its own script: a JSON list of steps, either in a code fence
// with the info string "tongs-script" or bare in the text. The last user message
// counts. Steps are:
//
//	{"tool": "bash", "args": {"command": "ls"}}   one tool call
//	{"tools": [{"tool": …}, {"tool": …}]}         tool calls in one answer, run in parallel
//	{"text": "…"}                                 text; with a tool step behind it, both are one answer
//	{"delay": "2s"}                               wait before what follows (at most 10 minutes)
//	{"error": {"status": 500, "message": "…"}}    refuse the request; after a text: break the stream off
//
// An error step is answered again whenever the same request comes again, as
// clients do for 429 and 5xx. With "times": n it fails n times and is then
// passed over; the count is kept in memory, and is the only thing that is.
//
// Every string in a step may refer to what has happened since the prompt:
//
//	{{last}}              text of the latest tool result
//	{{result 0}}          text of the first tool result; -1 is the latest
//	{{last /port (\d+)/}} the first group of the regular expression (RE2), or the
//	                      whole match when it has no group; the same with result
//	{{system}} {{prompt}} {{tools}}  the system prompt, the user message, and the
//	                      names of the tools offered, comma separated
//
// Remember that JSON wants each backslash twice. A reference that cannot be
// resolved ends the script with a text that says so.
//
// The place in the script follows from the conversation alone: it is the number
// of assistant answers since the prompt. So a server can be restarted between
// two steps, and any number of them can serve one conversation.
//
// # Without a script
//
// A prompt about random.js or a random number gets the demonstration: the file
// is written, run, read, and the number reported from the tool's result. Requests
// for a title get one. Anything else is answered with a text that says what this
// model is.
package scriptmodel
