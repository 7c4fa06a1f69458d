// Package bufpool lends buffers for long messages. Clearing a new one for each
// message takes longer than reading or writing it, and a session that kept one for
// itself would hold megabytes while it is idle.
package bufpool
