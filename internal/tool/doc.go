// Package tool carries out OpenCode's tools (bash, read, write, edit,
// apply_patch, glob, grep, list) on the machine it runs on: inside a sandbox,
// as the sandbox's user.
//
// [Call] runs one tool by name. Parameters, outputs, titles, metadata, error
// texts and the permissions asked for are those of the tools built into
// OpenCode 1.18.33, so that its clients show a call as they show their own and
// a model that knows those tools knows these. Where the built-in does damage or
// answers at random, these differ on purpose: each such case has its reason in
// the golden comparison (the field differs in golden*_test.go). glob and grep
// give the first results by path; which ones the built-ins give is up to the
// threads of ripgrep.
//
// # Limits
//
// An answer never exceeds [Env.MaxLines] lines and [Env.MaxBytes] bytes; above
// these OpenCode would cut it once more and send the model to a file that does
// not exist in the sandbox. What is cut here is kept whole in [Env.OutputDir].
// Other limits are constants with their reason beside them; each ends in an
// error that says what to do instead.
//
// # Hostile input
//
// Arguments come from a model and files from anybody. Only regular files are
// opened for their contents, and never in a way that can block; patterns are
// matched in linear time; every walk, search and comparison has a bound and
// ends when its context does.
package tool
