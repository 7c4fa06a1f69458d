// Sessions of shells, code contexts, git, watching and searching.
import assert from "node:assert/strict";
import { add, bytes, events, eventsOf, joined, thrown, until } from "./case.mjs";

add("createSession: a directory and variables of its own", async ({ box, own }) => {
  await box.exec("mkdir -p app/src");
  const s = own(await box.createSession({ id: "build", cwd: "app", env: { MODE: "test" } }));
  assert.equal(s.id, "build");
  assert.match((await s.exec("pwd; echo $MODE")).stdout, /\/app\ntest\n$/);
  await s.exec("cd src && export MODE=changed NEW=1");
  const r = await s.exec("basename $PWD; echo $MODE$NEW");
  assert.equal(r.stdout, "src\nchanged1\n");
  assert.equal(r.sessionId, "build");
  assert.equal((await box.exec("echo \"[$MODE]\"; basename $PWD")).stdout, "[]\nproject\n");
  await s.setEnvVars({ NEW: null, MODE: "set" });
  assert.equal((await s.exec("echo $MODE$NEW")).stdout, "set\n");
  await s.writeFile("here.txt", "x");
  assert.equal((await box.exists("app/src/here.txt")).exists, true);
  assert.equal((await s.listFiles(".")).count, 1);
  const p = own(await s.startProcess("basename $PWD; echo $MODE; sleep 300"));
  assert.equal(p.sessionId, "build");
  await p.waitForLog("set");
  assert.equal((await p.getLogs()).stdout, "src\nset\n");
  assert.equal(joined(await events(await s.execStream("basename $PWD")), "stdout"), "src\n");
  await p.kill();
});

add("sessions: again by id, conflicts, the end", async ({ box, own }) => {
  own(await box.createSession({ id: "one" }));
  await thrown(box.createSession({ id: "one" }), "SESSION_ALREADY_EXISTS");
  const again = own(await box.getSession("one"));
  await again.exec("cd /tmp");
  assert.equal((await own(await box.getSession("one")).exec("pwd")).stdout, "/tmp\n");
  assert.deepEqual([...(await box.listSessions())], ["one"]);
  const end = await box.deleteSession("one");
  assert.equal(end.sessionId, "one");
  await thrown(again.exec("true"), "SESSION_DESTROYED");
  await thrown(box.getSession("one"), "SESSION_NOT_FOUND");
  await thrown(box.deleteSession("one"), "SESSION_NOT_FOUND");
  await thrown(box.createSession({ id: "../x" }), "VALIDATION_FAILED");
  await thrown(box.createSession({ cwd: "/no/such/place" }), "FILE_NOT_FOUND");
});

add("sessions: what breaks a shell breaks no session", async ({ box, own }) => {
  const s = own(await box.createSession({ commandTimeoutMs: 20_000 }));
  for (const command of ["exit 3", "set -e; false", "if then", `echo "`, "kill -9 $$"]) {
    const r = await s.exec(command);
    assert.equal(r.success, false, command);
  }
  assert.equal((await s.exec("echo still")).stdout, "still\n");
  assert.equal((await s.exec("sleep 300", { timeout: 200 })).timedOut, true);
  assert.equal((await s.exec("echo still")).stdout, "still\n");
});

add("setEnvVars reaches sessions that are made later", async ({ box, own }) => {
  await box.setEnvVars({ EVERYWHERE: "yes" });
  const s = own(await box.createSession({}));
  assert.equal((await s.exec("echo $EVERYWHERE")).stdout, "yes\n");
});

add("runCode keeps state: python", async ({ box, skip }) => {
  const has = await box.exec("python3 --version");
  if (!has.success) skip("no python3");
  const c = await box.createCodeContext({ language: "python" });
  assert.equal(c.language, "python");
  assert.ok(c.createdAt instanceof Date);
  await box.runCode("x = 20", { context: c });
  const out = [];
  const r = await box.runCode("print('hi')\nx * 2 + 2", { context: c, onStdout: (m) => void out.push(m.text) });
  assert.equal(r.results[0].text, "42");
  assert.equal(r.logs.stdout.join(""), "hi\n");
  assert.equal(out.join(""), "hi\n");
  let told;
  const e = await box.runCode("1/0", { context: c, onError: (x) => void (told = x.name) });
  assert.equal(e.error.name, "ZeroDivisionError");
  assert.equal(told, "ZeroDivisionError");
  assert.ok(e.error.traceback.length > 0);
  assert.equal((await box.runCode("x", { context: c })).results[0].text, "20");
  const other = await box.runCode("'x' in globals()", { language: "python" });
  assert.equal(other.results[0].text, "False");
  assert.ok((await box.listCodeContexts()).some((k) => k.id === c.id));
  await box.deleteCodeContext(c.id);
  await thrown(box.runCode("x", { context: c }), "CONTEXT_NOT_FOUND");
  await thrown(box.createCodeContext({ language: "cobol" }), "VALIDATION_FAILED");
});

add("runCode and runCodeStream: javascript", async ({ box }) => {
  const r = await box.runCode("const y = 6; y * 7", { language: "javascript" });
  assert.equal(r.results[0].text, "42");
  const all = await events(await box.runCodeStream("console.log('a'); console.error('b'); y + 1", { language: "js" }));
  assert.equal(all.filter((e) => e.type === "stdout").map((e) => e.text).join(""), "a\n");
  assert.equal(all.filter((e) => e.type === "stderr").map((e) => e.text).join(""), "b\n");
  assert.equal(all.find((e) => e.type === "result").text, "7");
  assert.equal(all.at(-1).type, "execution_complete");
  const e = await events(await box.runCodeStream("throw new TypeError('no')", { language: "js" }));
  assert.equal(e.find((x) => x.type === "error").ename, "TypeError");
  await thrown(box.runCode("while (true) {}", { language: "js", timeout: 300 }), "TIMEOUT");
  assert.equal((await box.runCode("y", { language: "js" })).results[0].text, "6");
});

add("interruptCode", async ({ box }) => {
  const c = await box.createCodeContext({ language: "javascript", id: "loop" });
  let out = "";
  const run = box.runCode("console.log('in'); while (true) {}", { context: c, onStdout: (m) => void (out += m.text) });
  await until("it runs", () => out === "in\n");
  await box.interruptCode("loop");
  assert.ok((await run).error);
});

add("gitCheckout", async ({ box, own }) => {
  const made = await box.exec(`git init -q -b main /tmp/repo-$$ && cd /tmp/repo-$$ && git config user.email a@b && git config user.name n &&
    echo 1 > f && git add f && git commit -qm one && git checkout -qb side && echo 2 > f && git commit -qam two && git checkout -q main && pwd`);
  const repo = made.stdout.trim();
  const r = await box.gitCheckout(repo, { targetDir: "copy" });
  assert.equal(r.success, true);
  assert.equal(r.branch, "main");
  assert.match(r.targetDir, /\/copy$/);
  assert.equal((await box.readFile("copy/f")).content, "1\n");
  const s = own(await box.createSession({ id: "g" }));
  await s.exec("mkdir sub && cd sub");
  const side = await s.gitCheckout(repo, { branch: "side", depth: 1, targetDir: "there" });
  assert.match(side.targetDir, /\/sub\/there$/);
  assert.equal((await box.readFile("sub/there/f")).content, "2\n");
  await thrown(box.gitCheckout(repo, { branch: "none", targetDir: "x" }), "GIT_BRANCH_NOT_FOUND");
  const e = await thrown(box.gitCheckout("/nothing/there", { targetDir: "y" }), "GIT_REPOSITORY_NOT_FOUND");
  assert.equal(e.httpStatus, 404);
  await thrown(box.gitCheckout("ext::sh -c id", {}), "INVALID_GIT_URL");
  await thrown(box.gitCheckout("--upload-pack=x", {}), "INVALID_GIT_URL");
  await box.exec(`rm -rf ${repo}`);
});

add("watch gives the SDK's events", async ({ box }) => {
  await box.mkdir("w");
  const stream = await box.watch("w", { exclude: ["*.log"] });
  await box.writeFile("w/a.txt", "1");
  await box.writeFile("w/b.log", "1");
  await box.exec("mkdir w/d && echo 1 > w/d/in.txt");
  const seen = new Set();
  let first;
  for await (const e of eventsOf(stream)) {
    first ??= e;
    if (e.type !== "event") continue;
    assert.doesNotMatch(e.path, /b\.log/);
    const what = `${e.eventType} ${e.path.split("/w/")[1]}`;
    // What comes and goes before a new directory is watched, nobody can see.
    if (what === "create d/in.txt" && !seen.has(what)) await box.exec("mv w/a.txt w/d/moved.txt && rm w/d/in.txt");
    seen.add(what);
    if (e.eventType === "delete") break;
  }
  assert.equal(first.type, "watching");
  assert.equal(first.path, "w");
  for (const want of ["create a.txt", "create d", "create d/in.txt", "move_from a.txt", "move_to d/moved.txt", "delete d/in.txt"]) {
    assert.ok(seen.has(want), `${want} is not in ${[...seen]}`);
  }
  await thrown(box.watch("nothing"), "FILE_NOT_FOUND");
  await thrown(box.watch("w", { include: 4 }), "VALIDATION_FAILED");
});

add("watch ends when the thing is gone", async ({ box }) => {
  await box.mkdir("gone");
  const stream = await box.watch("gone");
  await box.files.remove("gone", { recursive: true });
  const all = await events(stream);
  assert.equal(all.at(-1).type, "stopped");
});

add("search: glob, grep, find", async ({ box }) => {
  await box.exec("mkdir -p s/src && cd s && echo 'hello World' > src/main.go && echo 'nothing' > src/other.txt && echo hello > .hidden");
  const g = await box.search.glob({ path: "s", include: ["*.go"] });
  assert.equal(g.paths.length, 1);
  const m = await box.search.grep("hello (\\w+)", { path: "s" });
  assert.equal(m.matches.length, 1);
  assert.equal(m.matches[0].line, 1);
  const f = await box.search.find("mgo", { path: "s" });
  assert.match(f.matches[0].path, /main\.go$/);
  await thrown(box.search.grep("(", { path: "s" }), "VALIDATION_FAILED");
});

add("files: lines, edit, patch, copy, archive", async ({ box }) => {
  await box.writeFile("t.txt", "one\ntwo\nthree\n");
  const l = await box.files.readLines("t.txt", { first: 2, count: 1 });
  assert.equal(Buffer.from(l.text).toString(), "two\n");
  assert.equal(l.total, 3);
  await box.files.edit("t.txt", "two", "$& $1 2");
  assert.equal((await box.readFile("t.txt")).content, "one\n$& $1 2\nthree\n");
  await thrown(box.files.edit("t.txt", "absent", "x"), "TEXT_NOT_FOUND");
  await thrown(box.files.edit("t.txt", "e", "x"), "TEXT_NOT_UNIQUE");
  await box.files.applyPatch("*** Begin Patch\n*** Add File: new.txt\n+hi\n*** End Patch");
  assert.equal((await box.readFile("new.txt")).content, "hi\n");
  await box.exec("mkdir -p tree/deep && cp t.txt tree/deep/");
  await box.files.copy("tree", "copied");
  assert.equal((await box.exists("copied/deep/t.txt")).exists, true);
  const tar = await box.files.archive("tree", { format: "tar.gz" });
  const packed = await bytes(tar);
  assert.equal(packed[0], 0x1f);
  const r = await box.files.extract("unpacked", new Blob([packed]).stream());
  assert.ok(r);
  assert.equal((await box.exec("find unpacked -name t.txt | wc -l")).stdout.trim(), "1");
  await thrown(box.files.extract("bad", new Blob(["this is no archive".repeat(100)]).stream()), "INVALID_ARCHIVE");
});
