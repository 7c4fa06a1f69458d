import type { Hooks, Plugin, PluginModule } from "@opencode-ai/plugin"
import { sharedHub } from "./listener"
import { correctEnvironment, quotePaths } from "./prompt"
import { settings } from "./settings"
import { tools } from "./tools"

const server: Plugin = async (): Promise<Hooks> => {
  const set = settings()
  const hub = sharedHub(set)
  return {
    tool: tools(hub, set.waitMs),
    "tool.execute.before": async ({ tool }, { args }) => {
      if (tool !== "task" || typeof args !== "object" || args === null) return
      for (const name of ["prompt", "description", "command"])
        if (typeof args[name] === "string") args[name] = quotePaths(args[name])
    },
    "experimental.chat.system.transform": async (_, { system }) => correctEnvironment(system, set.project),
  }
}

export default { id: "tongs", server } satisfies PluginModule
