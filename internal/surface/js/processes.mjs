// Background processes and their handles.
import assert from "node:assert/strict";
import { createServer } from "node:net";
import { add, events, eventsOf, joined, nap, thrown, until } from "./case.mjs";

// freePort is a port that nobody has now: the sandboxes of this suite share the machine's network.
export async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

add("startProcess gives a Process", async ({ box, own }) => {
  const p = own(await box.startProcess("echo ready; sleep 300", { processId: "web" }));
  assert.equal(p.id, "web");
  assert.ok(p.pid > 0);
  assert.equal(p.command, "echo ready; sleep 300");
  assert.equal(p.status, "running");
  assert.ok(p.startTime instanceof Date);
  assert.equal(await p.getStatus(), "running");
  assert.equal((await p.waitForLog("ready", 30_000)).line, "ready");
  assert.equal((await p.getLogs()).stdout, "ready\n");
  await p.kill();
  const { exitCode } = await p.waitForExit(30_000);
  assert.equal(exitCode, 143);
  assert.equal(await p.getStatus(), "killed");
});

add("listProcesses, getProcess and the ends of processes", async ({ box, own }) => {
  own(await box.startProcess("exit 0", { processId: "good" }));
  own(await box.startProcess("exit 7", { processId: "bad" }));
  own(await box.startProcess("sleep 300", { processId: "long" }));
  const state = async () => Object.fromEntries(own(await box.listProcesses()).map((p) => [p.id, p.status]));
  await until("both have ended", async () => {
    const s = await state();
    return s.good === "completed" && s.bad === "failed" && s.long === "running";
  });
  await box.exec("true");
  assert.deepEqual(Object.keys(await state()).sort(), ["bad", "good", "long"]);
  const bad = own(await box.getProcess("bad"));
  assert.equal(bad.exitCode, 7);
  assert.ok(bad.endTime instanceof Date);
  assert.equal(await box.getProcess("nobody"), null);
  assert.equal(await box.cleanupCompletedProcesses(), 2);
  assert.deepEqual(await state(), { long: "running" });
  assert.equal(await box.killAllProcesses(), 1);
  await until("it is killed", async () => (await state()).long === "killed");
  assert.equal(await box.killAllProcesses(), 0);
});

add("killProcess sends the signal that was named", async ({ box, own }) => {
  const p = own(await box.startProcess("trap 'echo got usr1' USR1; trap 'echo got int; exit 4' INT; echo up; while :; do sleep 0.05; done"));
  await p.waitForLog("up");
  await box.killProcess(p.id, "SIGUSR1");
  await p.waitForLog("got usr1", 30_000);
  await box.killProcess(p.id, 2);
  assert.equal((await p.waitForExit()).exitCode, 4);
  await thrown(box.killProcess(p.id, "SIGNOPE"), "VALIDATION_FAILED");
  await thrown(box.killProcess("nobody"), "PROCESS_NOT_FOUND");
});

add("killing takes the grandchildren along", async ({ box, own }) => {
  const sleep = nap();
  const p = own(await box.startProcess(`(${sleep} & ${sleep}) & echo up; wait`));
  await p.waitForLog("up");
  await p.kill();
  await p.waitForExit(30_000);
  await until("nobody is left", async () => (await box.exec(`pgrep -fx '${sleep}' | wc -l`)).stdout.trim() === "0");
});

add("waitForLog: text, expression, timeout, early end", async ({ box, own }) => {
  const p = own(await box.startProcess("echo 'Listening on port 4321'; sleep 300"));
  const m = await p.waitForLog({ source: "listening ON port (\\d+)", flags: "i" }, 30_000);
  assert.equal(m.line, "Listening on port 4321");
  assert.deepEqual([...m.match], ["Listening on port 4321", "4321"]);
  const late = await thrown(p.waitForLog("never", 50), "PROCESS_READY_TIMEOUT");
  assert.equal(late.httpStatus, 408);
  await thrown(p.waitForLog({ source: "(" }), "VALIDATION_FAILED");
  await thrown(p.waitForLog(42), "VALIDATION_FAILED");
  await p.kill();
  const gone = await thrown(p.waitForLog("never", 30_000), "PROCESS_EXITED_BEFORE_READY");
  assert.equal(gone.httpStatus, 500);
});

add("waitForPort: tcp, http, early end", async ({ box, own }) => {
  const port = await freePort();
  const p = own(await box.startProcess(`node -e 'require("http").createServer((q, r) => { r.statusCode = q.url == "/ok" ? 204 : 500; r.end() }).listen(${port}, "127.0.0.1")'`));
  await p.waitForPort(port, { mode: "tcp", timeout: 30_000 });
  await p.waitForPort(port, { path: "/ok", timeout: 30_000 });
  await p.waitForPort(port, { path: "/other", status: 500, timeout: 30_000 });
  await thrown(p.waitForPort(port, { path: "/other", timeout: 300 }), "PROCESS_READY_TIMEOUT");
  await thrown(p.waitForPort(0), "INVALID_PORT");
  await thrown(p.waitForPort(port, { mode: "udp" }), "VALIDATION_FAILED");
  const q = own(await box.startProcess("exit 1"));
  await thrown(q.waitForPort(await freePort(), { timeout: 30_000 }), "PROCESS_EXITED_BEFORE_READY");
  await p.kill();
});

add("streamProcessLogs goes on from an offset", async ({ box, own }) => {
  const p = own(await box.startProcess("echo one; echo two >&2; read x; echo three; exit 2", { stdin: "", processId: "s" }));
  await p.waitForExit(30_000);
  const all = await events(await box.streamProcessLogs("s"));
  assert.equal(all[0].type, "process_info");
  assert.equal(joined(all, "stdout") , "one\nthree\n");
  assert.equal(joined(all, "stderr"), "two\n");
  assert.equal(all.at(-1).type, "exit");
  assert.equal(all.at(-1).exitCode, 2);
  const first = all.find((e) => e.type === "stdout" || e.type === "stderr");
  const rest = await events(await box.streamProcessLogs("s", { since: first.offset }));
  assert.equal(joined(rest, "stdout").length + joined(rest, "stderr").length + first.data.length, 14);
  await thrown(box.streamProcessLogs("nobody"), "PROCESS_NOT_FOUND");
  await thrown(box.getProcessLogs("nobody"), "PROCESS_NOT_FOUND");
});

add("streamProcessLogs follows", async ({ box, own }) => {
  const p = own(await box.startProcess("for i in 1 2 3; do echo line $i; sleep 0.02; done; sleep 300"));
  let text = "";
  for await (const e of eventsOf(await box.streamProcessLogs(p.id))) {
    if (e.type === "stdout") text += e.data;
    if (text.endsWith("line 3\n")) break;
  }
  assert.equal(text, "line 1\nline 2\nline 3\n");
  await p.kill();
});

add("startProcess tells its callbacks", async ({ box, own }) => {
  let out = "";
  let exit;
  let started;
  const p = own(await box.startProcess("echo a; echo b; exit 6", {
    onStart: (q) => void (started = q.id),
    onOutput: (stream, data) => void (out += `${stream}:${data}`),
    onExit: (code) => void (exit = code),
  }));
  assert.equal(started, p.id);
  await until("onExit is called", () => exit !== undefined);
  assert.equal(exit, 6);
  assert.equal(out.replaceAll("stdout:", ""), "a\nb\n");
});

add("two processes of one id", async ({ box, own }) => {
  own(await box.startProcess("sleep 300", { processId: "one" }));
  await thrown(box.startProcess("true", { processId: "one" }), "PROCESS_ALREADY_EXISTS");
  await box.killProcess("one");
});

add("a process handle can be used without waiting for it", async ({ box, own }) => {
  const p = own(box.startProcess("echo x; sleep 300"));
  assert.equal((await p.waitForLog("x")).line, "x");
  await p.kill("SIGKILL");
  assert.equal((await p.waitForExit()).exitCode, 137);
});
