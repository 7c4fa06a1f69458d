import { createHash, timingSafeEqual } from "node:crypto"
import { readFile } from "node:fs/promises"
import { Hub } from "./hub"
import { Link, maxMessage } from "./link"
import { log } from "./log"
import type { Settings } from "./settings"

/** What a connection that is not from the host learns: nothing. */
const refused = () => new Response("a token is needed\n", { status: 401, headers: { "www-authenticate": "Bearer" } })

/** Pause before the port is tried again when it is taken, in milliseconds. */
const retryMs = 250

interface Data {
  link?: Link
}

/**
 * OpenCode loads a plugin once per directory, into one process.
 * All of them share this hub and its one listener.
 */
export function sharedHub(settings: Settings): Hub {
  const key = Symbol.for("dev.tongs.hub/1")
  const shared = globalThis as { [key]?: Hub }
  const known = shared[key]
  if (known) return known
  const hub = new Hub()
  shared[key] = hub
  listen(hub, settings)
  return hub
}

function listen(hub: Hub, settings: Settings): void {
  try {
    const server = serve(hub, settings)
    hub.problem = undefined
    log("INFO", "waiting for the host", { port: server.port ?? settings.port })
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    if (!hub.problem) log("ERROR", "the bridge cannot listen, it will be tried again", { port: settings.port, reason })
    hub.problem = `the plugin cannot listen on 127.0.0.1:${settings.port}: ${reason}`
    setTimeout(() => listen(hub, settings), retryMs).unref()
  }
}

function serve(hub: Hub, settings: Settings) {
  return Bun.serve<Data, never>({
    hostname: "127.0.0.1",
    port: settings.port,
    async fetch(request, server) {
      // A browser sends Origin; the host does not.
      if (request.headers.has("origin")) return new Response("pages of a browser are refused\n", { status: 403 })
      if (!(await authentic(request.headers.get("authorization"), settings.tokenFile))) return refused()
      if (server.upgrade(request, { data: {} })) return undefined
      return new Response("this is a WebSocket endpoint\n", { status: 426, headers: { upgrade: "websocket" } })
    },
    websocket: {
      maxPayloadLength: maxMessage,
      backpressureLimit: 2 * maxMessage,
      closeOnBackpressureLimit: true,
      idleTimeout: 30,
      sendPings: true,
      perMessageDeflate: false,
      open(socket) {
        const link = new Link(socket, (broken) => {
          hub.detach(broken)
          log("WARN", "the connection of the host has ended")
        })
        socket.data.link = link
        hub.attach(link)
        log("INFO", "the host is connected")
      },
      message(socket, message) {
        socket.data.link?.arrive(message)
      },
      close(socket, code, reason) {
        socket.data.link?.finish(new Error(`the connection of the host has ended: ${code} ${reason}`.trim()))
      },
    },
  })
}

/** Compares without telling by its time how much was right. */
async function authentic(header: string | null, tokenFile: string): Promise<boolean> {
  let token: string
  try {
    token = (await readFile(tokenFile, "utf8")).trim()
  } catch (error) {
    log("ERROR", "the bridge's token cannot be read", { file: tokenFile, reason: String(error) })
    return false
  }
  if (token.length < 16) {
    log("ERROR", "the bridge's token is too short", { file: tokenFile })
    return false
  }
  const digest = (text: string) => createHash("sha256").update(text).digest()
  return timingSafeEqual(digest(header ?? ""), digest(`Bearer ${token}`))
}
