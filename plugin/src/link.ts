import { RpcSession, RpcTarget, type RpcStub, type RpcTransport } from "capnweb"
import type { ServerWebSocket } from "bun"
import type { Host } from "./wire"
import { version } from "./settings"

/** Largest Cap'n Web message either way, in bytes of the frame. */
export const maxMessage = 32 << 20

/** A WebSocket close reason has at most this many bytes (RFC 6455, 5.5). */
const maxReason = 123

/** The plugin's main object: what the host may ask of it. */
class Main extends RpcTarget {
  hello() {
    return { plugin: version, pid: process.pid }
  }
}

/**
 * One connection of a host: a Cap'n Web session over a server-side WebSocket.
 * It is broken once and for good; a host that comes back makes a new one.
 */
export class Link implements RpcTransport {
  /** True from the moment at which no answer can come any more. */
  broken = false
  readonly main: RpcStub<Host>
  #socket: ServerWebSocket<unknown>
  #arrived: string[] = []
  #reader: { resolve: (text: string) => void; reject: (reason: unknown) => void } | undefined
  #end: Error | undefined

  constructor(socket: ServerWebSocket<unknown>, onBroken: (link: Link) => void) {
    this.#socket = socket
    const session = new RpcSession<Host>(this, new Main(), { limits: { maxMessageSize: maxMessage } })
    this.main = session.getRemoteMain()
    this.main.onRpcBroken(() => {
      this.broken = true
      onBroken(this)
    })
  }

  // The session's side.

  send(message: string): void {
    if (this.#end) throw this.#end
    // 0 means that the socket is closed or its buffer (backpressureLimit) is full.
    if (this.#socket.send(message) === 0) {
      this.finish(new Error("the connection to the host takes no more data"))
      this.#socket.terminate()
      throw this.#end
    }
  }

  receive(): Promise<string> {
    const next = this.#arrived.shift()
    if (next !== undefined) return Promise.resolve(next)
    if (this.#end) return Promise.reject(this.#end)
    return new Promise((resolve, reject) => (this.#reader = { resolve, reject }))
  }

  abort(reason: unknown): void {
    this.broken = true
    if (this.#end) return
    this.#socket.close(3000, clip(reason instanceof Error ? reason.message : String(reason)))
  }

  // The socket's side.

  arrive(message: string | Buffer): void {
    if (this.#end) return
    if (typeof message !== "string") {
      this.close(1003, "Cap'n Web messages are text")
      return
    }
    const reader = this.#reader
    this.#reader = undefined
    if (reader) reader.resolve(message)
    else this.#arrived.push(message)
  }

  /** Ends the session because the connection is gone. */
  finish(reason: Error): void {
    if (this.#end) return
    this.#end = reason
    this.broken = true
    const reader = this.#reader
    this.#reader = undefined
    reader?.reject(reason)
  }

  /** Closes the connection from this side. */
  close(code: number, reason: string): void {
    this.finish(new Error(reason))
    this.#socket.close(code, clip(reason))
  }
}

function clip(reason: string): string {
  let bytes = 0
  let text = ""
  for (const char of reason) {
    bytes += Buffer.byteLength(char)
    if (bytes > maxReason) break
    text += char
  }
  return text
}
