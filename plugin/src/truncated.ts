/** Bound on calls that are remembered; those of aborted calls would stay for ever. */
const maxRemembered = 1000

const truncated = new Set<string>()

/**
 * OpenCode sets metadata.truncated of a plugin's tool to what it did itself,
 * which is nothing, since the sandbox has cut the output already. These two
 * bring the sandbox's word back: a result passes the first and then, with
 * OpenCode's changes, the second.
 */
export function rememberTruncated(sessionID: string, callID: string, metadata: Record<string, unknown> | undefined): void {
  if (metadata?.truncated !== true) return
  if (truncated.size >= maxRemembered) truncated.clear()
  truncated.add(`${sessionID} ${callID}`)
}

export function restoreTruncated(sessionID: string, callID: string, metadata: unknown): void {
  if (truncated.delete(`${sessionID} ${callID}`) && typeof metadata === "object" && metadata !== null)
    (metadata as Record<string, unknown>).truncated = true
}
