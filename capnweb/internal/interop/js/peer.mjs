// The JavaScript side of the interop tests, driven by the Go side: one JSON object per line on
// stdin, one answer per line on stdout, in any order. It serves the object of api.mjs on a port
// (first line out), and runs the cases of cases-*.mjs against a URL it is told.
//
//   {"id":1,"do":"list","lib":"0.8.0"}                         the cases that version can do
//   {"id":2,"do":"case","lib":"0.8.0","name":"call","url":…,"session":"x"}
//                                                              run one over a WebSocket, which stays open
//   {"id":3,"do":"batch","lib":…,"name":…,"url":…}             run one over an HTTP batch
//   {"id":4,"do":"stock","lib":…,"name":…,"url":…}             run one through newWebSocketRpcSession(url)
//   {"id":5,"do":"relayed","lib":…,"target":"0.12.0","name":…,"client":…,"server":…,"session":"x"}
//                                                              run one through a relay of two sockets
//   {"id":11,"do":"serveTo","lib":…,"url":…,"session":"x"}      connect, and serve the object of api.mjs there
//   {"id":6,"do":"close","session":"x"}                        close what 2 or 5 left open
//   {"id":7,"do":"served","session":"x"}                       tables of the session served as ?id=x, once idle
//   {"id":8,"do":"broken","lib":…,"url":…,"session":"x"}         call hang() and wait until the session breaks
//   {"id":9,"do":"fragments","url":…}                           split messages, pings, then a binary message
//   {"id":10,"do":"hangUp","session":"x"}                       close that
import http from "node:http";
import readline from "node:readline";
import WebSocket, { WebSocketServer } from "ws";
import { makeApi } from "./api.mjs";
import "./cases-calls.mjs";
import "./cases-media.mjs";
import { dial, idle, library, over } from "./session.mjs";
import * as cases from "./suite.mjs";

globalThis.WebSocket = WebSocket; // node 20 has none

const served = new Map(); // sessions by the id in their URL
const opened = new Map(); // how to close what a command left open

const server = http.createServer((request, response) => {
  const url = new URL(request.url, "http://localhost");
  const lib = library(url.pathname.slice(1));
  lib.nodeHttpBatchRpcResponse(request, response, makeApi(lib)).catch((e) => {
    response.writeHead(500);
    response.end(String(e?.message ?? e));
  });
});

const sockets = new WebSocketServer({ server, maxPayload: 256 << 20, perMessageDeflate: false });
sockets.on("connection", (ws, request) => {
  const url = new URL(request.url, "http://localhost");
  const lib = library(url.pathname.slice(1));
  const session = over(ws, lib, makeApi(lib));
  const id = url.searchParams.get("id");
  served.set(id, session);
  session.closed.then(() => served.delete(id));
});

// 0.8.0 delivers the reason of an abort in a wrapping.
const reasonText = (e) => String(e?.message ?? e?.value?.message ?? e);

const commands = {
  list: ({ lib }) => cases.list(lib),

  async case({ lib: version, name, url, session: id }) {
    const lib = library(version);
    const session = dial(url, lib);
    opened.set(id, () => session.close());
    await cases.run(name, session.api, lib);
    return { client: await idle(session) };
  },

  async batch({ lib: version, name, url }) {
    const lib = library(version);
    const api = lib.newHttpBatchRpcSession(url);
    await cases.run(name, api, lib);
    return {};
  },

  async stock({ lib: version, name, url }) {
    const lib = library(version);
    const api = lib.newWebSocketRpcSession(url);
    const broken = new Promise((resolve) => api.onRpcBroken(resolve));
    await cases.run(name, api, lib);
    api[Symbol.dispose]();
    await broken;
    return {};
  },

  async relayed({ lib: version, target: targetVersion, name, client, server, session: id }) {
    const lib = library(version);
    const targetLib = library(targetVersion);
    const target = dial(server, targetLib, makeApi(targetLib));
    const session = dial(client, lib);
    opened.set(id, async () => {
      await session.close();
      await target.closed; // the relay ends the other socket
    });
    await cases.run(name, session.api, lib);
    return { client: await idle(session), target: await idle(target) };
  },

  async serveTo({ lib: version, url, session: id }) {
    const lib = library(version);
    const session = dial(url, lib, makeApi(lib));
    opened.set(id, () => session.close());
    return {};
  },

  async close({ session }) {
    await opened.get(session)?.();
    opened.delete(session);
    return {};
  },

  async served({ session }) {
    const s = served.get(session);
    if (!s) throw new Error(`no session ${session}`);
    return { server: await idle(s) };
  },

  async broken({ lib: version, url }) {
    const session = dial(url, library(version));
    const call = session.api.hang().then(() => "no error", reasonText);
    const broken = new Promise((resolve) => session.api.onRpcBroken((e) => resolve(reasonText(e))));
    return { call: await call, broken: await broken, ...(await session.closed) };
  },

  async fragments({ url }) {
    const ws = new WebSocket(url, { perMessageDeflate: true });
    const got = [];
    const pongs = [];
    let arrived;
    ws.on("message", (data) => {
      got.push(String(data));
      arrived?.();
    });
    ws.on("pong", (data) => pongs.push(String(data)));
    const closed = new Promise((resolve) => ws.once("close", (code) => resolve(code)));
    await new Promise((resolve, reject) => ws.once("open", resolve).once("error", reject));
    const pull = '["pull",1]';
    let n = 0;
    for (const c of '["push",["pipeline",0,["square"],[7]]]') {
      ws.send(c, { fin: false });
      ws.ping(String(++n));
    }
    ws.send("", { fin: true });
    ws.send(pull.slice(0, 3), { fin: false });
    ws.send(pull.slice(3), { fin: true });
    while (got.length < 1) await new Promise((resolve) => (arrived = resolve));
    // Earlier pings may go unanswered, the latest not.
    while (pongs.at(-1) !== String(n)) await new Promise((resolve) => ws.once("pong", resolve));
    ws.send(Buffer.from('["pull",0]')); // a binary message
    return { pongs, code: await closed, got };
  },

  async hangUp({ session }) {
    await served.get(session)?.close();
    return {};
  },
};

process.on("unhandledRejection", (e) => console.error("unhandled rejection:", e));

server.listen(0, "127.0.0.1", () => {
  process.stdout.write(JSON.stringify({ port: server.address().port, node: process.version }) + "\n");
});

const lines = readline.createInterface({ input: process.stdin });
lines.on("line", async (line) => {
  const command = JSON.parse(line);
  const answer = { id: command.id };
  try {
    if (!Object.hasOwn(commands, command.do)) throw new Error(`unknown command ${command.do}`);
    answer.result = await commands[command.do](command);
  } catch (e) {
    answer.error = e?.stack ?? String(e);
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
});
lines.on("close", () => process.exit(0)); // the Go side is gone
