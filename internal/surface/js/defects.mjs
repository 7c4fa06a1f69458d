// What was measured to be wrong elsewhere, as a program of the SDK sees it; each is right here.
import assert from "node:assert/strict";
import { add, events, joined, nap, thrown, until } from "./case.mjs";

add("defect: a syntax error or an exit ends no session", async ({ box }) => {
  for (const command of ["if then", "exit 3", "set -e; false", "kill -9 $$", `echo "`]) {
    await box.exec(command, { timeout: 20_000 });
    assert.equal((await box.exec("echo still")).stdout, "still\n");
  }
});

add("defect: a command that timed out is killed and blocks nobody", async ({ box }) => {
  const began = performance.now();
  await box.exec("sleep 300", { timeout: 100 });
  assert.equal((await box.exec("echo next")).stdout, "next\n");
  assert.ok(performance.now() - began < 60_000);
  assert.equal((await box.exec("echo later; sleep 0.3; echo end")).stdout, "later\nend\n");
});

add("defect: every byte comes back", async ({ box }) => {
  const r = await box.exec("printf 'no newline'");
  assert.equal(r.stdout, "no newline");
  assert.equal((await box.exec("printf 'a\\0b\\n\\n'")).stdout, "a\0b\n\n");
  const exact = await box.exec("printf '\\377\\376\\0'", { encoding: "base64" });
  assert.equal(exact.stdout, Buffer.from([255, 254, 0]).toString("base64"));
});

add("defect: a background child that keeps the pipe does not hang", async ({ box }) => {
  const r = await box.exec("sleep 300 & echo started; disown", { timeout: 30_000 });
  assert.equal(r.stdout, "started\n");
  assert.notEqual(r.timedOut, true);
});

add("defect: commands of one session run side by side", async ({ box }) => {
  await box.exec("mkfifo gate");
  const waits = box.exec("read x < gate; echo got $x", { timeout: 30_000 });
  await box.exec("echo it > gate", { timeout: 30_000 });
  assert.equal((await waits).stdout, "got it\n");
});

add("defect: 64 MiB of output", async ({ box }) => {
  let n = 0;
  const decoder = new TextDecoder();
  let complete = false;
  for await (const chunk of await box.execStream("head -c 67108864 /dev/zero | tr '\\0' x")) {
    for (const line of decoder.decode(chunk, { stream: true }).split("\n")) {
      if (!line.startsWith("data: ")) continue;
      const e = JSON.parse(line.slice(6));
      if (e.type === "stdout") n += e.data.length;
      complete ||= e.type === "complete" && e.exitCode === 0;
    }
  }
  assert.equal(n, 64 << 20);
  assert.ok(complete);
});

add("defect: cwd is the project for files and commands alike", async ({ box }) => {
  await box.writeFile("where.txt", "here");
  assert.equal((await box.exec("cat where.txt")).stdout, "here");
  const { project } = await box.info();
  assert.equal((await box.readFile(`${project}/where.txt`)).content, "here");
});

add("defect: odd names are names", async ({ box }) => {
  for (const name of ["a b.txt", "-rf", "quo'te", 'dou"ble', "new\nline", "$(touch hacked)", "`id`", "ünï.txt"]) {
    await box.writeFile(name, name);
    assert.equal((await box.readFile(name)).content, name);
  }
  assert.equal((await box.exists("hacked")).exists, false);
  assert.equal((await box.listFiles(".")).count, 8);
});

add("defect: the end of a process that was killed is its own", async ({ box, own }) => {
  const sleep = nap();
  const p = own(await box.startProcess(`(trap '' HUP; exec ${sleep}) & ${sleep}`));
  await box.killProcess(p.id);
  await p.waitForExit(30_000);
  await until("no orphan is left", async () => (await box.exec(`pgrep -fx '${sleep}' | wc -l`)).stdout.trim() === "0");
});

add("defect: logs of a process end with its exit", async ({ box, own }) => {
  own(await box.startProcess("echo only; exit 4", { processId: "p" }));
  const all = await events(await box.streamProcessLogs("p"));
  assert.equal(joined(all, "stdout"), "only\n");
  assert.equal(all.at(-1).exitCode, 4);
  assert.deepEqual({ ...(await box.getProcessLogs("p")), offset: 0 }, { stdout: "only\n", stderr: "", processId: "p", offset: 0 });
});
