import * as z from "zod/mini"
import type { Hooks, ToolDefinition } from "@opencode-ai/plugin"
import list from "../tools.json"
import { callTool } from "./call"
import type { Hub } from "./hub"

interface Parameters {
  type: "object"
  properties: Record<string, Record<string, unknown>>
  required?: string[]
}

/** The ids of the tools that are carried out in the sandbox. */
export const ids = list.map((tool) => tool.id)

/** The tools of tools.json, each carried out in the sandbox of its session. */
export function tools(hub: Hub, waitMs: number): NonNullable<Hooks["tool"]> {
  return Object.fromEntries(
    list.map((tool) => [
      tool.id,
      {
        description: tool.description,
        args: shape(tool.parameters as unknown as Parameters) as unknown as ToolDefinition["args"],
        execute: (args, context) => callTool(hub, waitMs, tool.id, args, context),
      } satisfies ToolDefinition,
    ]),
  )
}

/**
 * OpenCode takes a tool's arguments as Zod types, shows their JSON schema to
 * the model, and refuses what they do not accept with a text that helps no
 * model. So each argument is of a type that accepts anything and whose JSON
 * schema is the one in tools.json: the sandbox checks them, and its errors name
 * the argument and what is right.
 */
function shape(parameters: Parameters) {
  const required = new Set(parameters.required)
  return Object.fromEntries(
    Object.entries(parameters.properties).map(([name, schema]) => {
      const type = required.has(name) ? z.any() : z.optional(z.any())
      return [name, Object.assign(type, { meta: () => schema })]
    }),
  )
}
