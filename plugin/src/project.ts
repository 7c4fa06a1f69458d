import { pause } from "./call"
import { Patience, type Hub } from "./hub"
import { log } from "./log"
import type { Facts } from "./prompt"
import type { Project, WireError } from "./wire"

/** Bound on attempts, should the connection break again and again. */
const maxAttempts = 20

/** Bound on sessions whose project is remembered. */
const maxRemembered = 256

/** What is known of the projects of sessions, oldest first. */
const known = new Map<string, { version: string; instructions: string }>()

/**
 * Asks the sandbox of a session about its project. Text that has not changed is
 * not sent again. Throws what makes the sandbox unreachable: without it a model
 * would be told of the wrong machine. A sandbox from before this could be asked
 * has its project where all have it.
 */
export async function factsOf(hub: Hub, waitMs: number, sessionID: string, project: string): Promise<Facts> {
  const patience = new Patience(waitMs)
  for (let attempt = 1; ; attempt++) {
    const link = await hub.link(patience)
    const box = link.main.sandbox(sessionID)
    try {
      const before = known.get(sessionID)
      const { directory, worktree, git, platform, version, instructions }: Project = await box.project(before?.version)
      const text = before?.version === version ? before.instructions : (instructions ?? "")
      known.delete(sessionID)
      known.set(sessionID, { version, instructions: text })
      for (const oldest of known.keys()) {
        if (known.size <= maxRemembered) break
        known.delete(oldest)
      }
      return { directory, worktree, git, platform, instructions: text }
    } catch (error) {
      const { name, code, message } = error as WireError
      if (name === "TypeError" && /is not a function/.test(message)) {
        log("WARN", "the session's sandbox is of an older version and tells no instructions", { session: sessionID })
        return { directory: project, worktree: project, git: true, platform: "linux", instructions: "" }
      }
      if (!(link.broken || code === "CONNECTION_LOST") || attempt >= maxAttempts) throw error
      if (!link.broken) await pause(patience)
    } finally {
      box[Symbol.dispose]()
    }
  }
}
