// A plugin in the shapes of the description that this project began with: it
// opens a Cap'n Web server, takes the stub of whoever connects, and its tools
// call exec, readFile and writeFile on sandbox(sessionID). Nothing of ours is in
// it. TestSeedPlugin loads it into OpenCode and lets the bridge connect to it.
import { tool, type Plugin } from "@opencode-ai/plugin"
import { newBunWebSocketRpcSession, type BunWebSocketTransport, type RpcStub } from "capnweb"
import { z } from "zod"

interface ExecResult {
  success: boolean
  exitCode: number
  stdout: string
  stderr: string
}

interface Sandbox {
  exec(command: string, options?: { timeout?: number }): Promise<ExecResult>
  readFile(path: string): Promise<{ content: string }>
  writeFile(path: string, content: string): Promise<{ success: boolean }>
}

interface SandboxApi {
  sandbox(sessionId: string): Sandbox
}

const connected = Promise.withResolvers<RpcStub<SandboxApi>>()

const transports = new WeakMap<object, BunWebSocketTransport>()

const SandboxPlugin: Plugin = async () => {
  Bun.serve({
    hostname: "127.0.0.1",
    port: Number(process.env.TONGS_BRIDGE_PORT ?? 3001),
    fetch: (request, server) => (server.upgrade(request, { data: undefined }) ? undefined : new Response("WebSocket only", { status: 400 })),
    websocket: {
      data: undefined as undefined,
      open(ws) {
        const { stub, transport } = newBunWebSocketRpcSession<SandboxApi, undefined>(ws)
        transports.set(ws, transport as BunWebSocketTransport)
        connected.resolve(stub as RpcStub<SandboxApi>)
      },
      message: (ws, message) => transports.get(ws)?.dispatchMessage(message),
      close: (ws, code, reason) => transports.get(ws)?.dispatchClose(code, reason),
    },
  })
  return {
    tool: {
      bash: tool({
        description: "Run a command",
        args: { command: z.string(), timeout: z.number().optional() },
        async execute({ command, timeout }, context) {
          const api = await connected.promise
          const done = await api.sandbox(context.sessionID).exec(command, { timeout })
          return `${done.stdout}${done.stderr}${done.exitCode === 0 ? "" : `\nexit code ${done.exitCode}`}`
        },
      }),
      write: tool({
        description: "Write a file",
        args: { filePath: z.string(), content: z.string() },
        async execute({ filePath, content }, context) {
          const api = await connected.promise
          await api.sandbox(context.sessionID).writeFile(filePath, content)
          return `wrote ${filePath}`
        },
      }),
      read: tool({
        description: "Read a file",
        args: { filePath: z.string() },
        async execute({ filePath }, context) {
          const api = await connected.promise
          return (await api.sandbox(context.sessionID).readFile(filePath)).content
        },
      }),
    },
  }
}

export default SandboxPlugin
