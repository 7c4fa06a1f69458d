// Bad input that needs a real sandbox, from JavaScript: node sandbox.mjs URL TOKEN. Prints {name, error} for each step.
import assert from "node:assert/strict";
import { newWebSocketRpcSession } from "capnweb";
import WebSocket from "ws";

globalThis.WebSocket ??= WebSocket; // the client looks at its constants

const [url, token] = process.argv.slice(2);
const socket = new WebSocket(url.replace(/^http/, "ws"), { headers: { Authorization: `Bearer ${token}` } });
const tongs = newWebSocketRpcSession(socket);
const box = await tongs.create({ name: "hostile" });

const alive = async () => assert.equal((await box.exec("echo alive")).stdout, "alive\n");

async function step(name, run) {
  try {
    await run();
    await alive();
    console.log(JSON.stringify({ name }));
  } catch (e) {
    console.log(JSON.stringify({ name, error: String(e.stack ?? e) }));
  }
}

async function rejected(promise, code) {
  try {
    await promise;
  } catch (e) {
    assert.equal(e.code, code, e.stack);
    assert.equal(typeof e.httpStatus, "number");
    return;
  }
  assert.fail(`there was no ${code}`);
}

await step("it is a sandbox of its own", async () => {
  assert.equal((await box.exec("id -u; hostname")).stdout, "1000\nhostile\n");
});

await step("a full disk", async () => {
  await rejected(box.files.write("/tmp/large", "x".repeat(24 << 20)), "NO_SPACE");
  assert.equal(await box.files.exists("/tmp/large"), false);
  await box.files.write("/tmp/small", "fits");
});

await step("100,000 files", async () => {
  const r = await box.exec("mkdir many && cd many && seq 100000 | xargs touch");
  assert.equal(r.exitCode, 0, r.stderr);
  let count = 0;
  let last = "";
  for (let cursor; ; ) {
    const page = await box.files.list("many", { limit: 10_000, ...(cursor && { cursor }) });
    for (const e of page.entries) {
      assert.ok(e.path > last, "sorted, and none twice");
      last = e.path;
    }
    count += page.entries.length;
    if (!(cursor = page.next)) break;
  }
  assert.equal(count, 100_000);
});

await step("a file of 10 GiB", async () => {
  const r = await box.exec("truncate -s 10G huge && printf end >>huge");
  assert.equal(r.exitCode, 0, r.stderr);
  await rejected(box.readFile("huge"), "FILE_TOO_LARGE");
  const size = 10 * 2 ** 30 + 3;
  assert.equal((await box.files.stat("huge")).size, size);
  let got = 0;
  let tail = Buffer.alloc(0);
  for await (const chunk of await box.files.readStream("huge", { offset: size - (64 << 20) })) {
    got += chunk.length;
    tail = Buffer.from(chunk);
  }
  assert.equal(got, 64 << 20);
  assert.equal(tail.subarray(-3).toString(), "end");
  // A reader that goes away long before the end holds nobody up.
  const reader = (await box.files.readStream("huge")).getReader();
  await reader.read();
  await reader.cancel();
});

await step("a memory hog", async () => {
  const r = await box.exec("head -c 3G /dev/zero | tail", { timeout: 60_000 });
  assert.notEqual(r.exitCode, 0);
});

await step("a fork bomb", async () => {
  const r = await box.exec(":(){ :|:& };:; sleep 1", { timeout: 20_000 }).catch((e) => e);
  assert.ok(r);
});

await step("1,000 commands at once", async () => {
  const all = await Promise.allSettled(Array.from({ length: 1000 }, (_, i) => box.exec(`echo ${i}`)));
  for (const [i, r] of all.entries()) {
    if (r.status === "fulfilled") assert.equal(r.value.stdout, `${i}\n`);
    else assert.equal(r.reason.code, "TOO_MANY_PROCESSES", r.reason.stack);
  }
});

await tongs.destroy("hostile");
socket.close();
