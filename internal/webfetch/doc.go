// Package webfetch carries OpenCode's tool webfetch out for a sandbox: on the host, since the sandbox's
// guest has no HTTP client, but only over connections that the sandbox itself could make.
//
// Parameters, texts, titles, attachments and the question for permission are those of the tool built into
// OpenCode 1.18. What a server sends is hostile: its size, its time, its redirects and the work of
// converting it are bounded.
package webfetch
