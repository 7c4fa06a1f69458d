// Sessions of the reference implementation over WebSocket, with their table sizes at hand.
import * as current from "capnweb";
import * as old from "capnweb-08";
import WebSocket from "ws";

export const libraries = { "0.12.0": current, "0.8.0": old };

// The largest message either side of a test sends; the library's default is 32 MiB.
const maxPayload = 256 * 1024 * 1024;

export function library(version) {
  const lib = libraries[version];
  if (!lib) throw new Error(`no capnweb ${version} here: ${Object.keys(libraries)}`);
  return lib;
}

// A transport of our own, because newWebSocketRpcSession hides the RpcSession and so its getStats().
class WebSocketTransport {
  #ws;
  #queue = [];
  #waiting = null;
  #unsent = [];
  #error = null;

  constructor(ws) {
    this.#ws = ws;
    ws.on("open", () => {
      for (const m of this.#unsent) ws.send(m);
      this.#unsent = [];
    });
    ws.on("message", (data, isBinary) => {
      if (isBinary) return this.#fail(new Error("binary frame"));
      const text = data.toString();
      if (this.#waiting) {
        const { resolve } = this.#waiting;
        this.#waiting = null;
        resolve(text);
      } else {
        this.#queue.push(text);
      }
    });
    ws.on("error", (e) => this.#fail(e));
    ws.on("close", (code, reason) => this.#fail(new Error(`Peer closed WebSocket: ${code} ${reason}`)));
  }

  #fail(error) {
    if (this.#error) return;
    this.#error = error;
    if (this.#waiting) {
      this.#waiting.reject(error);
      this.#waiting = null;
    }
  }

  async send(message) {
    if (this.#ws.readyState === WebSocket.CONNECTING) this.#unsent.push(message);
    else this.#ws.send(message);
  }

  receive() {
    if (this.#queue.length > 0) return Promise.resolve(this.#queue.shift());
    if (this.#error) return Promise.reject(this.#error);
    return new Promise((resolve, reject) => (this.#waiting = { resolve, reject }));
  }

  abort(reason) {
    this.#fail(reason instanceof Error ? reason : new Error(String(reason)));
    if (this.#ws.readyState === WebSocket.OPEN || this.#ws.readyState === WebSocket.CONNECTING) {
      this.#ws.close(3000, Buffer.from(String(reason?.message ?? reason)).subarray(0, 120).toString());
    }
  }
}

// over starts a session on an open or opening WebSocket.
export function over(ws, lib, main, options) {
  const rpc = new lib.RpcSession(new WebSocketTransport(ws), main, options);
  const closed = new Promise((resolve) => ws.once("close", (code, reason) => resolve({ code, reason: String(reason) })));
  return {
    api: rpc.getRemoteMain(),
    stats: () => rpc.getStats(),
    closed,
    async close() {
      if (ws.readyState !== WebSocket.CLOSED) {
        ws.close(1000);
        const timer = setTimeout(() => ws.terminate(), 2000);
        await closed;
        clearTimeout(timer);
      }
    },
  };
}

export function dial(url, lib, main, options) {
  return over(new WebSocket(url, { maxPayload, perMessageDeflate: false }), lib, main, options);
}

// idle waits until only the main objects are left in the tables, and returns the tables' sizes.
export async function idle(session, ms = 5000) {
  const end = Date.now() + ms;
  for (;;) {
    const s = session.stats();
    if ((s.imports === 1 && s.exports === 1) || Date.now() > end) return s;
    await new Promise((r) => setTimeout(r, 1));
  }
}
