// What a person, or a program that means harm, may send. Each ends in a typed error or a stated bound, and the
// sandbox answers the next call at once.
import assert from "node:assert/strict";
import { add, eventsOf, thrown, until } from "./case.mjs";

const alive = async (box) => assert.equal((await box.exec("echo alive")).stdout, "alive\n");

add("bad input: unbalanced quotes", async ({ box }) => {
  const r = await box.exec(`echo "never closed`);
  assert.equal(r.success, false);
  assert.match(r.stderr, /EOF|unexpected|unterminated/i);
  await alive(box);
});

add("bad input: a missing binary", async ({ box }) => {
  assert.equal((await box.exec("no-such-program-here")).exitCode, 127);
  await thrown(box.processes.start(["no-such-program-here"]), "COMMAND_NOT_FOUND");
  await alive(box);
});

add("bad input: paths", async ({ box }) => {
  await box.exec("mkdir dir; mkfifo fifo; ln -s loop loop; ln -s /dev/zero zero");
  await thrown(box.readFile("dir"), "IS_DIRECTORY");
  await thrown(box.writeFile("dir", "x"), "IS_DIRECTORY");
  await thrown(box.readFile("fifo"), "NOT_REGULAR");
  await thrown(box.readFile("loop"), "SYMLINK_LOOP");
  await thrown(box.readFile("/dev/zero"), "NOT_REGULAR");
  await thrown(box.readFileStream("zero"), "NOT_REGULAR");
  await thrown(box.readFile("a\0b"), "INVALID_PATH");
  await thrown(box.writeFile("n".repeat(4096), "x"), "NAME_TOO_LONG");
  await thrown(box.writeFile("n".repeat(300), "x"), "NAME_TOO_LONG");
  await thrown(box.readFile("../../../../../../../../no/way/out"), "FILE_NOT_FOUND");
  await thrown(box.readFile(""), "INVALID_PATH");
  await alive(box);
});

add("bad input: arguments of another type", async ({ box }) => {
  for (const call of [
    () => box.exec(42),
    () => box.exec(),
    () => box.exec({ command: "true" }),
    () => box.exec("true", "options"),
    () => box.readFile(null),
    () => box.killProcess(),
    () => box.exposePort("eighty", {}),
    () => box.setEnvVars("A=1"),
    () => box.processes.start("true"),
    () => box.files.chmod("x", "rwx"),
    () => box.nothingOfTheKind(),
    () => box.processes.nothingOfTheKind(),
  ]) {
    await assert.rejects(async () => call(), (e) => e instanceof Error);
  }
  await alive(box);
});

add("bad input: NUL in a command", async ({ box }) => {
  await thrown(box.exec("echo a\0b"), "INVALID_COMMAND");
  await alive(box);
});

add("bad input: a command line of 4 MiB", async ({ box }) => {
  await assert.rejects(async () => box.exec(`echo ${"x".repeat(4 << 20)}`), (e) => typeof e.code === "string");
  await alive(box);
});

add("bad input: a command that ignores SIGTERM", async ({ box }) => {
  const r = await box.exec("trap '' TERM; echo on; while :; do sleep 0.1; done", { timeout: 200 });
  assert.equal(r.timedOut, true);
  assert.equal(r.exitCode, 137);
  assert.equal(r.stdout, "on\n");
  await alive(box);
});

add("bad input: a reader that stops reading", async ({ box }) => {
  const stream = await box.execStream("yes x | head -c 20000000; echo end >&2");
  const reader = stream.getReader();
  await reader.read();
  for (let i = 0; i < 20; i++) await alive(box);
  reader.releaseLock();
  let end = false;
  for await (const e of eventsOf(stream)) end ||= e.type === "complete";
  assert.ok(end);
});

add("bad input: a client that disappears during a stream and a write", async ({ box, session }) => {
  // A second session to another sandbox of this endpoint, which is cut while it is busy.
  const { connect } = await import("./session.mjs");
  const other = connect(session.ws.url);
  const second = await other.api.create();
  const stream = await second.execStream("yes");
  await stream.getReader().read();
  const writer = (await second.files.writeStream("half")).getWriter();
  await writer.write("half");
  other.ws.terminate();
  writer.closed.catch(() => {});
  await alive(box);
});

add("bad input: 300 commands at once", async ({ box }) => {
  const all = await Promise.all(Array.from({ length: 300 }, (_, i) => box.exec(`echo ${i}`)));
  all.forEach((r, i) => assert.equal(r.stdout, `${i}\n`));
  await alive(box);
});

add("bad input: a process that is not there", async ({ box }) => {
  for (const id of ["nobody", "", "../../etc", "x".repeat(1000), "a b"]) {
    await assert.rejects(async () => box.killProcess(id), (e) => typeof e.code === "string");
  }
  await thrown(box.startProcess("true", { processId: "not a name" }), "INVALID_COMMAND");
  await alive(box);
});

add("bad input: two thousand references given up at once", async ({ box }) => {
  const all = [];
  for (let i = 0; i < 2000; i++) all.push(box.processes.then((x) => x[Symbol.dispose]()));
  await Promise.all(all);
  await alive(box);
  await until("the sandbox is quiet", async () => (await box.info()).processes === 0);
});

add("bad input: output of nothing but NUL", async ({ box }) => {
  const r = await box.exec("head -c 8000000 /dev/zero");
  assert.equal(r.truncated, true);
  assert.ok(r.stdout.length > 1_000_000);
  await box.exec("head -c 8000000 /dev/zero | tr '\\0' '\\1' > ones");
  await thrown(box.readFile("ones"), "FILE_TOO_LARGE");
  assert.equal((await box.readFile("ones", { encoding: "base64" })).size, 8_000_000);
  await alive(box);
});
