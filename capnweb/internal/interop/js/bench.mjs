// The reference's server for the benchmark: the object of conformancepeer -bench, on node, through
// the library's own WebSocket session and batches. Prints {"port":n,"pid":n}, serves until its stdin ends.
import http from "node:http";
import WebSocket, { WebSocketServer } from "ws";
import { RpcTarget, newWebSocketRpcSession, nodeHttpBatchRpcResponse } from "capnweb";

globalThis.WebSocket = WebSocket;

const messageLimit = 256 * 1024 * 1024;

class Counter extends RpcTarget {
  #n;
  constructor(n) {
    super();
    this.#n = n;
  }
  increment(by = 1) {
    return (this.#n += by);
  }
  next() {
    return new Counter(this.#n + 1);
  }
  get value() {
    return this.#n;
  }
}

class Api extends RpcTarget {
  nop() {}
  square(i) {
    return i * i;
  }
  echo(v) {
    return v;
  }
  makeCounter(n) {
    return new Counter(n);
  }
  sinkBytes(bytes) {
    return bytes.length;
  }
  sourceBytes(n) {
    return new Uint8Array(n);
  }
  async sinkStream(stream) {
    let size = 0;
    for await (const chunk of stream) size += chunk.length;
    return size;
  }
  sourceStream(n, chunk) {
    let left = n;
    const zeros = new Uint8Array(Math.min(n, chunk));
    return new ReadableStream({
      pull(controller) {
        if (left <= 0) return controller.close();
        const size = Math.min(chunk, left);
        left -= size;
        controller.enqueue(zeros.subarray(0, size));
      },
    });
  }
  async callback(f, n) {
    let sum = 0;
    for (let i = 0; i < n; i++) sum += await f(i);
    return sum;
  }
  getList(n) {
    return Array.from({ length: n }, (_, i) => i);
  }
  stats() {
    const { rss, heapUsed } = process.memoryUsage();
    return { rss, heap: heapUsed };
  }
}

const server = http.createServer((request, response) => nodeHttpBatchRpcResponse(request, response, new Api()));
new WebSocketServer({ server, maxPayload: messageLimit, perMessageDeflate: false }).on("connection", (ws) => {
  newWebSocketRpcSession(ws, new Api(), { limits: { maxMessageSize: messageLimit } });
});
server.listen(0, "127.0.0.1", () => {
  process.stdout.write(JSON.stringify({ port: server.address().port, pid: process.pid }) + "\n");
});
process.stdin.on("end", () => process.exit(0)).resume();
