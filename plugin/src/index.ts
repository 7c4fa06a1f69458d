import { existsSync } from "node:fs"
import { resolve } from "node:path"
import type { Hooks, Plugin, PluginModule } from "@opencode-ai/plugin"
import { sharedHub } from "./listener"
import { factsOf } from "./project"
import { describeSandbox, describesMachine, quotePaths } from "./prompt"
import { settings } from "./settings"
import { ids, tools } from "./tools"
import { restoreTruncated } from "./truncated"

/** Tools of OpenCode's own that touch neither files nor processes nor the network. */
const harmless = ["invalid", "question", "skill", "StructuredOutput", "task", "todowrite"]

/**
 * Configuration denies every tool that is neither ours nor harmless, but rules
 * of a session come after those of the configuration. So each call is looked
 * at once more, whatever it is that offers the tool.
 */
const allowed = new Set([...harmless, ...ids])

const server: Plugin = async ({ directory, worktree }): Promise<Hooks> => {
  const set = settings()
  const hub = sharedHub(set)
  const isThere = (name: string) => [directory, worktree].some((base) => existsSync(resolve(base, name)))
  return {
    tool: tools(hub, set.waitMs),
    "tool.execute.before": async ({ tool }, { args }) => {
      if (!allowed.has(tool)) throw new Error(`The ${tool} tool is refused: it would not run in the session's sandbox`)
      if (tool !== "task" || typeof args !== "object" || args === null) return
      for (const name of ["prompt", "description", "command"])
        if (typeof args[name] === "string") args[name] = quotePaths(args[name], isThere)
    },
    // OpenCode's shell runs its command in this session's sandbox, and none without a session.
    "shell.env": async ({ sessionID }, { env }) => {
      env.TONGS_SESSION = sessionID ?? ""
    },
    "tool.execute.after": async ({ sessionID, callID }, { metadata }) => restoreTruncated(sessionID, callID, metadata),
    "experimental.chat.system.transform": async ({ sessionID }, { system }) => {
      if (!describesMachine(system)) return // That of a title, or of a summary.
      if (!sessionID) throw new Error("A prompt of no session is refused: it would tell the model of another machine")
      describeSandbox(system, await factsOf(hub, set.waitMs, sessionID, set.project))
    },
  }
}

export default { id: "tongs", server } satisfies PluginModule
