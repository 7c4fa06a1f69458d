// The contract itself: processes, files, terminals, ports; and what reaches ports.
import assert from "node:assert/strict";
import { add, bytes, thrown, until } from "./case.mjs";
import { freePort } from "./processes.mjs";

add("processes.exec gives every byte", async ({ box }) => {
  const r = await box.processes.exec(["printf", "a\\0\\377b"]);
  assert.deepEqual([...r.stdout], [97, 0, 255, 98]);
  assert.equal(r.exit.code, 0);
  assert.equal(r.total, 4);
  const cat = await box.processes.exec(["cat"], { input: new Uint8Array([1, 0, 2]) });
  assert.deepEqual([...cat.stdout], [1, 0, 2]);
  await thrown(box.processes.exec(["no-such-program"]), "COMMAND_NOT_FOUND");
  await thrown(box.processes.exec([]), "INVALID_COMMAND");
});

add("processes: start, list, signal, wait", async ({ box }) => {
  const p = await box.processes.start(["sleep", "300"], { id: "s", labels: { kind: "nap" } });
  assert.equal(p.id, "s");
  assert.equal(p.running, true);
  assert.ok((await box.processes.list()).some((x) => x.id === "s" && x.labels.kind === "nap"));
  await box.processes.signal("s", "TERM");
  const end = await box.processes.wait("s");
  assert.equal(end.exit.signal, "SIGTERM");
  assert.equal(end.exit.code, -1);
  await thrown(box.processes.signal("s", 9), "PROCESS_EXITED");
  await box.processes.remove("s");
  await thrown(box.processes.get("s"), "PROCESS_NOT_FOUND");
});

add("processes.logs: a cursor, across two readers", async ({ box }) => {
  await box.processes.start(["bash", "-c", "for i in $(seq 1 2000); do echo line $i; done"], { id: "log" });
  await box.processes.wait("log");
  const parts = [];
  let offset = 0;
  const reader = (await box.processes.logs("log")).getReader();
  while (offset < 5000) {
    const { value, done } = await reader.read();
    if (done) break;
    if (value.data) parts.push(Buffer.from(value.data));
    offset = value.offset;
  }
  await reader.cancel();
  let info;
  for await (const c of await box.processes.logs("log", { since: offset })) {
    if (c.data) parts.push(Buffer.from(c.data));
    info = c.info ?? info;
  }
  const want = Array.from({ length: 2000 }, (_, i) => `line ${i + 1}\n`).join("");
  assert.equal(Buffer.concat(parts).toString(), want);
  assert.equal(info.exit.code, 0);
  await thrown(box.processes.logs("log", { since: -1 }), "VALIDATION_FAILED");
});

add("processes.stdin", async ({ box }) => {
  await box.processes.start(["cat"], { id: "cat", stdin: true });
  const w = (await box.processes.stdin("cat")).getWriter();
  await w.write(new TextEncoder().encode("one "));
  await w.write("two");
  await w.close();
  await box.processes.wait("cat");
  assert.equal((await box.getProcessLogs("cat")).stdout, "one two");
  await thrown(box.processes.stdin("cat"), "STDIN_CLOSED");
});

add("a stdin writer that breaks off leaves stdin open", async ({ box }) => {
  await box.processes.start(["cat"], { id: "cat", stdin: true });
  const w = (await box.processes.stdin("cat")).getWriter();
  await w.write("a");
  await until("it has come", async () => (await box.getProcessLogs("cat")).stdout === "a");
  await w.abort("no more");
  const v = (await box.processes.stdin("cat")).getWriter();
  await v.write("b");
  await v.close();
  await box.processes.wait("cat");
  assert.equal((await box.getProcessLogs("cat")).stdout, "ab");
});

add("files: streams both ways", async ({ box }) => {
  const w = (await box.files.writeStream("s.txt")).getWriter();
  for (let i = 0; i < 100; i++) await w.write(new TextEncoder().encode(`${i}\n`));
  await w.close();
  assert.equal((await bytes(await box.files.readStream("s.txt"))).toString().split("\n").length, 101);
  const part = await box.files.read("s.txt", { offset: 2, length: 3 });
  assert.equal(Buffer.from(part.data).toString(), "1\n2");
  const a = (await box.files.writeStream("s.txt")).getWriter();
  await a.write("lost");
  await a.abort("changed my mind");
  assert.equal((await box.files.stat("s.txt")).size, part.info.size);
  const bad = (await box.files.writeStream("no/dir/x")).getWriter();
  await assert.rejects(async () => {
    for (let i = 0; i < 100; i++) await bad.write("x");
    await bad.close();
  });
});

add("files: versions, links, modes", async ({ box }) => {
  const v1 = await box.files.write("v", "1");
  await box.files.write("v", "2", { ifVersion: v1.version });
  await thrown(box.files.write("v", "3", { ifVersion: v1.version }), "VERSION_MISMATCH");
  await thrown(box.files.write("v", "3", { exclusive: true }), "FILE_EXISTS");
  await box.files.write("v", "3", { append: true });
  assert.equal((await box.readFile("v")).content, "23");
  await box.files.symlink("v", "l");
  assert.equal((await box.files.lstat("l")).target, "v");
  assert.equal((await box.files.stat("l")).type, "file");
  await box.files.chmod("v", 0o600);
  assert.equal((await box.files.stat("v")).mode, 0o600);
  await box.files.mkdir("x/y", { parents: true });
  await thrown(box.files.remove("x"), "DIRECTORY_NOT_EMPTY");
  await box.files.remove("x", { recursive: true });
  assert.equal(await box.files.exists("x"), false);
  const page = await box.files.list(".", { limit: 1 });
  assert.equal(page.entries.length, 1);
  assert.ok(page.next);
});

add("terminal: type, resize, exit", async ({ box, own }) => {
  const t = own(await box.terminal({ cols: 100, rows: 30, command: ["bash", "--norc", "--noprofile"] }));
  const writer = t.writable.getWriter();
  let text = "";
  const reading = (async () => {
    for await (const chunk of t.readable) text += Buffer.from(chunk).toString();
  })();
  await writer.write("stty size; tty\n");
  await until("the size", () => /30 100\r\n/.test(text) && /\/dev\/pts\/|\/dev\/console/.test(text));
  await t.resize(120, 40);
  await writer.write("stty size\n");
  await until("the new size", () => /40 120\r\n/.test(text));
  await writer.write("exit 9\n");
  assert.equal((await t.exited()).exitCode, 9);
  await reading;
  await writer.abort().catch(() => {});
});

add("terminals: replay, two viewers", async ({ box }) => {
  const t = await box.terminals.create({ id: "term", command: ["bash", "--norc", "--noprofile"] });
  assert.equal(t.terminal.columns, 80);
  assert.ok((await box.terminals.list()).some((x) => x.id === "term"));
  const w = (await box.terminals.input("term")).getWriter();
  await w.write("echo hi-$((40+2))\n");
  const see = async () => {
    let text = "";
    for await (const c of await box.terminals.output("term")) {
      text += Buffer.from(c).toString();
      if (text.includes("hi-42")) return true;
    }
  };
  assert.deepEqual(await Promise.all([see(), see()]), [true, true]);
  assert.equal(await see(), true);
  await w.write("exit\n");
  assert.equal((await box.terminals.wait("term")).exit.code, 0);
  await w.abort().catch(() => {});
  await thrown(box.terminals.get("nobody"), "PROCESS_NOT_FOUND");
});

const webServer = (port) => `node -e '
const http = require("http");
http.createServer((q, r) => {
  let n = 0;
  q.on("data", (d) => n += d.length);
  q.on("end", () => {
    r.setHeader("x-path", q.url);
    if (q.url === "/redirect") { r.writeHead(302, { location: "/else" }); return r.end(); }
    r.write(q.method + " " + (q.headers["x-own"] || "") + " ");
    setTimeout(() => r.end(String(n)), 20);
  });
}).listen(${port}, "127.0.0.1", () => console.log("listening"))'`;

add("containerFetch and fetch reach a server", async ({ box, own }) => {
  const port = await freePort();
  const p = own(await box.startProcess(webServer(port)));
  await p.waitForLog("listening", 30_000);
  const r = await box.containerFetch(new Request("http://localhost/some/path?q=1", { method: "POST", body: "12345", headers: { "x-own": "me" } }), port);
  assert.equal(r.status, 200);
  assert.equal(r.headers.get("x-path"), "/some/path?q=1");
  assert.equal(await r.text(), "POST me 5");
  const s = await box.containerFetch("http://localhost/", { method: "PUT", body: "ab" }, port);
  assert.equal(await s.text(), "PUT  2");
  const f = await box.fetch(new Request(`http://localhost:${port}/redirect`));
  assert.equal(f.status, 302);
  await f.text();
  const h = await box.fetch(new Request("http://x/y", { headers: { "cf-container-target-port": String(port) } }));
  assert.equal(h.headers.get("x-path"), "/y");
  await h.text();
  await thrown(box.fetch("http://localhost/"), "INVALID_PORT");
  await thrown(box.containerFetch("http://localhost/", {}, 70000), "INVALID_PORT");
  await p.kill();
  await p.waitForExit();
  await thrown(box.containerFetch("http://localhost/", {}, port), "SERVICE_NOT_RESPONDING");
});

add("wsConnect passes messages on", async ({ box, own }) => {
  const port = await freePort();
  // A server that speaks just enough of WebSocket to echo short messages.
  await box.writeFile("ws.js", `
const { createServer } = require("http"), { createHash } = require("crypto");
createServer().on("upgrade", (q, s) => {
  const accept = createHash("sha1").update(q.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest("base64");
  s.write("HTTP/1.1 101 x\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\nSec-WebSocket-Accept: " + accept + "\\r\\n\\r\\n");
  s.on("error", () => {});
  s.on("data", (d) => {
    const op = d[0] & 15, n = d[1] & 127, mask = d.subarray(2, 6), body = Buffer.from(d.subarray(6, 6 + n).map((b, i) => b ^ mask[i % 4]));
    s.write(Buffer.concat([Buffer.from([128 | op, n]), body]));
    if (op === 8) s.end();
  });
}).listen(${port}, "127.0.0.1", () => console.log("listening"));`);
  const p = own(await box.startProcess("node ws.js"));
  await p.waitForLog("listening", 30_000);
  const ws = own(await box.wsConnect("http://localhost/chat", port));
  const writer = ws.writable.getWriter();
  const reader = ws.readable.getReader();
  await writer.write("hello");
  assert.equal((await reader.read()).value, "hello");
  await writer.write(new Uint8Array([0, 1, 2]));
  assert.deepEqual([...(await reader.read()).value], [0, 1, 2]);
  await writer.close();
  assert.equal((await reader.read()).done, true);
  await thrown(box.wsConnect("http://localhost/", await freePort()), "SERVICE_NOT_RESPONDING");
  await p.kill();
});

add("ports: list and dial", async ({ box, own }) => {
  const port = await freePort();
  const p = own(await box.startProcess(`node -e 'require("net").createServer((s) => s.pipe(s)).listen(${port}, "127.0.0.1", () => console.log("up"))'`));
  await p.waitForLog("up", 30_000);
  assert.ok((await box.ports.list()).some((x) => x.port === port && x.url === undefined));
  const { url } = await box.exposePort(port, { hostname: "localhost" });
  assert.ok((await box.ports.list()).some((x) => x.port === port && x.url === url));
  await box.unexposePort(port);
  const c = own(await box.ports.dial(port));
  const w = c.writable.getWriter();
  const reading = bytes(c.readable);
  await w.write(new TextEncoder().encode("echo"));
  await w.close();
  assert.equal((await reading).toString(), "echo");
  await p.kill();
  await p.waitForExit();
  await thrown(box.ports.dial(port), "SERVICE_NOT_RESPONDING");
  await thrown(box.ports.dial(0), "INVALID_PORT");
});

add("exposePort and its like", async ({ box }) => {
  const x = await box.exposePort(8080, { hostname: "example.com", name: "web" });
  assert.deepEqual(x, { url: x.url, port: 8080, name: "web" });
  assert.match(x.url, /^http:\/\/8080-/);
  assert.equal(await box.isPortExposed(8080), true);
  assert.equal(await box.isPortExposed(8081), false);
  const list = await box.getExposedPorts("example.com");
  assert.equal(list.length, 1);
  assert.equal(list[0].status, "inactive");
  assert.equal(await box.validatePortToken(8080, "t0k3n"), true);
  assert.equal(await box.validatePortToken(8080, "guess"), false);
  await box.unexposePort(8080);
  assert.equal(await box.isPortExposed(8080), false);
  await thrown(box.exposePort(99999, {}), "INVALID_PORT");
});
