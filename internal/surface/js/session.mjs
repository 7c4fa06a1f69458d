// A session of the npm client over a WebSocket, with its table sizes at hand.
import { RpcSession } from "capnweb";
import WebSocket from "ws";

class Transport {
  constructor(ws) {
    this.ws = ws;
    this.arrived = [];
    this.waiting = [];
    this.failure = undefined;
    this.opened = new Promise((resolve, reject) => {
      ws.once("open", resolve);
      ws.once("error", reject);
    });
    this.opened.catch(() => {});
    ws.on("message", (data) => {
      const next = this.waiting.shift();
      if (next) next.resolve(data.toString());
      else this.arrived.push(data.toString());
    });
    ws.on("error", (e) => this.fail(e));
    ws.on("close", (code) => this.fail(new Error(`the connection was closed with code ${code}`)));
  }
  fail(e) {
    this.failure ??= e;
    for (const w of this.waiting.splice(0)) w.reject(this.failure);
  }
  async send(text) {
    await this.opened;
    this.ws.send(text);
  }
  async receive() {
    if (this.arrived.length) return this.arrived.shift();
    if (this.failure) throw this.failure;
    return new Promise((resolve, reject) => this.waiting.push({ resolve, reject }));
  }
  abort(e) {
    this.fail(e);
    this.ws.close();
  }
}

export function connect(url) {
  const headers = process.env.TONGS_TOKEN ? { authorization: `Bearer ${process.env.TONGS_TOKEN}` } : {};
  const ws = new WebSocket(url, { maxPayload: 1 << 28, perMessageDeflate: false, headers });
  const rpc = new RpcSession(new Transport(ws));
  return {
    ws,
    api: rpc.getRemoteMain(),
    stats: () => rpc.getStats(),
    close: () =>
      new Promise((resolve) => {
        if (ws.readyState === WebSocket.CLOSED) return resolve();
        ws.once("close", resolve);
        ws.close();
      }),
  };
}

// idle waits until the tables hold nothing but the main objects.
export async function idle(session, ms = 30_000) {
  const end = Date.now() + ms;
  for (;;) {
    const s = session.stats();
    if (s.imports === 1 && s.exports === 1) return;
    if (Date.now() > end) throw new Error(`references are left: ${JSON.stringify(s)}`);
    await new Promise((r) => setTimeout(r, 2));
  }
}
