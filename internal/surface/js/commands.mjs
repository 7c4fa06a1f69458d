// Commands: exec, execStream, variables, cancelling.
import assert from "node:assert/strict";
import { add, events, eventsOf, joined, nap, thrown, until } from "./case.mjs";

add("exec gives the SDK's result", async ({ box }) => {
  const r = await box.exec("echo out; echo err >&2; exit 3");
  assert.equal(r.success, false);
  assert.equal(r.exitCode, 3);
  assert.equal(r.stdout, "out\n");
  assert.equal(r.stderr, "err\n");
  assert.equal(r.command, "echo out; echo err >&2; exit 3");
  assert.ok(r.duration > 0);
  assert.ok(Math.abs(Date.parse(r.timestamp) - Date.now()) < 60_000);
  assert.equal((await box.exec("true")).success, true);
});

add("exec is one round trip behind create", async ({ session, own }) => {
  const box = own(session.api.create());
  assert.equal((await box.exec("echo hi")).stdout, "hi\n");
});

add("exec takes cwd, env, stdin and encoding", async ({ box }) => {
  await box.mkdir("sub dir", { recursive: true });
  assert.match((await box.exec("pwd", { cwd: "sub dir" })).stdout, /project\/sub dir\n$/);
  assert.equal((await box.exec('echo "$A|$BASE"', { env: { A: "1", BASE: undefined } })).stdout, "1|\n");
  assert.equal((await box.exec("wc -c", { stdin: "four" })).stdout.trim(), "4");
  const r = await box.exec("printf '\\0\\377x'", { encoding: "base64" });
  assert.deepEqual([...Buffer.from(r.stdout, "base64")], [0, 255, 120]);
  await thrown(box.exec("true", { encoding: "latin1" }), "VALIDATION_FAILED");
  await thrown(box.exec("true", { timeout: -1 }), "VALIDATION_FAILED");
  await thrown(box.exec("true", { cwd: "/nothing/here" }), "FILE_NOT_FOUND");
});

add("exec with a timeout kills, and gives what was printed", async ({ box }) => {
  const sleep = nap();
  const r = await box.exec(`echo before; ${sleep}; echo after`, { timeout: 300 });
  assert.equal(r.timedOut, true);
  assert.equal(r.success, false);
  assert.equal(r.stdout, "before\n");
  assert.equal((await box.exec(`pgrep -fx '${sleep}' || echo none`)).stdout.trim(), "none");
});

add("exec tells its callbacks", async ({ box }) => {
  const told = [];
  let completed;
  const r = await box.exec("echo 1; echo 2 >&2; sleep 0.05; printf 'gr\\303\\274n'", {
    stream: true,
    onOutput: (stream, data) => void told.push([stream, data]),
    onComplete: (x) => void (completed = { ...x }),
  });
  assert.equal(r.stdout, "1\ngrün");
  assert.equal(told.filter(([s]) => s === "stdout").map(([, d]) => d).join(""), "1\ngrün");
  assert.equal(told.filter(([s]) => s === "stderr").map(([, d]) => d).join(""), "2\n");
  assert.equal(completed.exitCode, 0);
  let failed;
  await thrown(box.exec("true", { cwd: "/nothing", onOutput: () => {}, onError: (e) => void (failed = e.code) }), "FILE_NOT_FOUND");
  assert.equal(failed, "FILE_NOT_FOUND");
});

add("a callback that fails does not end the command", async ({ box }) => {
  const r = await box.exec("for i in 1 2 3; do echo $i; sleep 0.02; done", { onOutput: () => { throw new Error("no"); } });
  assert.equal(r.stdout, "1\n2\n3\n");
});

add("execStream gives the SDK's events", async ({ box }) => {
  const all = await events(await box.execStream("echo a; echo b >&2; exit 5"));
  assert.equal(all[0].type, "start");
  assert.equal(all[0].command, "echo a; echo b >&2; exit 5");
  assert.equal(joined(all, "stdout"), "a\n");
  assert.equal(joined(all, "stderr"), "b\n");
  const last = all.at(-1);
  assert.equal(last.type, "complete");
  assert.equal(last.exitCode, 5);
  assert.equal(last.result.success, false);
  assert.ok(all.every((e) => e.timestamp));
});

add("execStream comes while the command runs", async ({ box }) => {
  await box.exec("mkfifo gate");
  const seen = [];
  for await (const e of eventsOf(await box.execStream("echo first; read x < gate; echo $x"))) {
    seen.push(e);
    if (e.type === "stdout" && e.data === "first\n") await box.exec("echo second > gate");
  }
  assert.equal(joined(seen, "stdout"), "first\nsecond\n");
  assert.equal(seen.at(-1).exitCode, 0);
});

add("a command whose reader leaves runs to its end", async ({ box }) => {
  const stream = await box.execStream("echo go; head -c 3000000 /dev/zero | tr '\\0' x; echo end > left.txt");
  const reader = stream.getReader();
  await reader.read();
  await reader.cancel();
  await until("the command's last act", async () => (await box.exists("left.txt")).exists);
});

add("variables are set for later commands", async ({ box }) => {
  await box.setEnvVars({ GREETING: "hello", BASE: null });
  assert.equal((await box.exec('echo "$GREETING|$BASE|$LATER"')).stdout, "hello||\n");
  await box.setEnvVars({ GREETING: undefined, LATER: "x" });
  assert.equal((await box.exec('echo "$GREETING|$LATER"')).stdout, "|x\n");
  await thrown(box.setEnvVars({ "A=B": "1" }), "VALIDATION_FAILED");
});

add("cancel ends a command by the id its caller chose", async ({ box }) => {
  const running = box.exec("echo on; sleep 300", { processId: "mine" });
  await until("the command's first words", async () => (await box.processes.list()).some((p) => p.id === "mine" && p.logEnd === 3));
  assert.equal(await box.cancel("mine"), true);
  const r = await running;
  assert.equal(r.success, false);
  assert.equal(r.stdout, "on\n");
  assert.equal(await box.cancel("nobody"), false);
});

add("a thousand bytes or eight million: exec says when it has cut", async ({ box }) => {
  const whole = await box.exec("head -c 8000000 /dev/zero | tr '\\0' x");
  assert.equal(whole.stdout.length, 8_000_000);
  assert.equal(whole.truncated, undefined);
  const cut = await box.exec("head -c 3000 /dev/zero | tr '\\0' x", { maxOutput: 1000 });
  assert.equal(cut.stdout.length, 1000);
  assert.equal(cut.truncated, true);
  await thrown(box.exec("true", { maxOutput: 1e9 }), "VALIDATION_FAILED");
});

add("settings that make no sense here are refused with the reason", async ({ box }) => {
  for (const call of [
    () => box.setSleepAfter("10m"),
    () => box.setContainerTimeouts({ instanceGetTimeoutMS: 1 }),
    () => box.mountBucket("b", "/mnt", { provider: "r2" }),
    () => box.unmountBucket("/mnt"),
    () => box.createBackup({ dir: "/tmp" }),
    () => box.restoreBackup({ id: "x", dir: "/tmp" }),
    () => box.setSandboxName("another"),
    () => box.desktop.start(),
    () => box.desktop.screenshot({}),
  ]) {
    const e = await thrown(call(), "NOT_SUPPORTED");
    assert.equal(e.httpStatus, 501);
  }
  await box.setKeepAlive(true);
  await box.setSandboxName(await box.id);
});

add("info", async ({ box }) => {
  const info = await box.info();
  assert.equal(info.protocol, 1);
  assert.ok(info.incarnation.length > 8);
  await box.destroy();
});
