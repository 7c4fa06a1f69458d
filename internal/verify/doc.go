// Package verify drives every door of a running service and says where each one
// leads: a door is any way by which OpenCode could touch a file, a process or the
// network.
//
// It plants canaries, each a random word: in the agent host, on this machine, and in
// the sandbox of another session. The session's own sandbox gets a word too, the
// marker. The same paths and the same ports give another word in each place, so that
// what comes back through a door says by itself where it was carried out; and what a
// door should not do is looked for in all places afterwards. A status code alone
// decides nothing: an escape is a canary that was seen, or an effect on the wrong
// side.
package verify
