// Files in the SDK's shapes.
import assert from "node:assert/strict";
import { add, bytes, events, joined, thrown } from "./case.mjs";

add("writeFile and readFile", async ({ box }) => {
  const w = await box.writeFile("a.txt", "grün\n");
  assert.equal(w.success, true);
  assert.equal(w.path, "a.txt");
  const r = await box.readFile("a.txt");
  assert.equal(r.content, "grün\n");
  assert.equal(r.encoding, "utf-8");
  assert.equal(r.isBinary, false);
  assert.equal(r.mimeType, "text/plain");
  assert.equal(r.size, 6);
  assert.equal((await box.exec("cat a.txt")).stdout, "grün\n");
});

add("readFile and writeFile with base64, bytes and streams", async ({ box }) => {
  await box.writeFile("b.bin", Buffer.from([0, 1, 255]).toString("base64"), { encoding: "base64" });
  const r = await box.readFile("b.bin");
  assert.equal(r.isBinary, true);
  assert.equal(r.encoding, "base64");
  assert.deepEqual([...Buffer.from(r.content, "base64")], [0, 1, 255]);
  await box.writeFile("c.bin", new Uint8Array([9, 0, 9]));
  assert.equal((await box.readFile("c.bin")).size, 3);
  const stream = new Blob(["x".repeat(300_000)]).stream();
  assert.equal((await box.writeFile("d.txt", stream)).bytesWritten, 300_000);
  const raw = await box.readFile("d.txt", { encoding: "none" });
  assert.equal((await bytes(raw.content)).length, 300_000);
  assert.equal((await box.readFile("a b'c.txt".slice(0, 0) + "c.bin", { encoding: "base64" })).encoding, "base64");
  await thrown(box.writeFile("e", "***", { encoding: "base64" }), "VALIDATION_FAILED");
  await thrown(box.writeFile("e", 42), "VALIDATION_FAILED");
  await thrown(box.readFile("c.bin", { encoding: "rot13" }), "VALIDATION_FAILED");
});

add("a stream that breaks changes nothing", async ({ box }) => {
  await box.writeFile("keep.txt", "old");
  let n = 0;
  const broken = new ReadableStream({
    pull(c) {
      if (n++ < 3) c.enqueue(new Uint8Array(1000));
      else c.error(new Error("the source broke"));
    },
  });
  await assert.rejects(async () => box.writeFile("keep.txt", broken));
  assert.equal((await box.readFile("keep.txt")).content, "old");
});

add("files of 40 MiB, both ways", async ({ box }) => {
  const size = 40 << 20;
  const part = new Uint8Array(1 << 20).map((_, i) => i * 31);
  let sent = 0;
  const stream = new ReadableStream({
    pull(c) {
      if (sent === size) return c.close();
      sent += part.length;
      c.enqueue(part);
    },
  });
  const w = await box.writeFile("big.bin", stream);
  assert.equal(w.bytesWritten, size);
  await thrown(box.readFile("big.bin"), "FILE_TOO_LARGE");
  let got = 0;
  for await (const chunk of await box.files.readStream("big.bin")) got += chunk.length;
  assert.equal(got, size);
  assert.equal((await box.exec("sha256sum big.bin | cut -c1-8; head -c 1048576 big.bin | sha256sum | cut -c1-8")).success, true);
});

add("readFileStream gives the SDK's events", async ({ box }) => {
  await box.writeFile("t.md", "grün ".repeat(40_000));
  const all = await events(await box.readFileStream("t.md"));
  assert.deepEqual(all[0], { type: "metadata", mimeType: all[0].mimeType, size: 240_000, isBinary: false, encoding: "utf-8" });
  assert.match(all[0].mimeType, /^text\//);
  assert.equal(joined(all, "chunk"), "grün ".repeat(40_000));
  assert.deepEqual(all.at(-1), { type: "complete", bytesRead: 240_000 });
  const raw = Buffer.from(Array.from({ length: 200_000 }, (_, i) => (i * 7) % 256));
  await box.writeFile("t.bin", raw);
  const bin = await events(await box.readFileStream("t.bin"));
  assert.equal(bin[0].encoding, "base64");
  assert.ok(Buffer.from(joined(bin, "chunk"), "base64").equals(raw));
  await box.exec("head -c 10000 /dev/zero | tr '\\0' x > late.txt; printf '\\377' >> late.txt");
  const late = await events(await box.readFileStream("late.txt"));
  assert.equal(late.at(-1).type, "error");
  assert.equal(late.at(-1).code, "VALIDATION_FAILED");
  await thrown(box.readFileStream("nothing"), "FILE_NOT_FOUND");
});

add("mkdir, exists, renameFile, moveFile, deleteFile", async ({ box }) => {
  assert.deepEqual({ ...(await box.mkdir("d/e/f", { recursive: true })), timestamp: "" }, { success: true, path: "d/e/f", recursive: true, timestamp: "" });
  await thrown(box.mkdir("no/parent"), "FILE_NOT_FOUND");
  await thrown(box.mkdir("d"), "FILE_EXISTS");
  assert.equal((await box.exists("d/e/f")).exists, true);
  assert.equal((await box.exists("d/x/f")).exists, false);
  await box.writeFile("one", "1");
  const r = await box.renameFile("one", "two");
  assert.equal(r.newPath, "two");
  assert.equal((await box.moveFile("two", "d/e")).newPath, "d/e/two");
  assert.equal((await box.readFile("d/e/two")).content, "1");
  await thrown(box.deleteFile("d"), "IS_DIRECTORY");
  await box.deleteFile("d/e/two");
  await thrown(box.deleteFile("d/e/two"), "FILE_NOT_FOUND");
  await thrown(box.renameFile("gone", "x"), "FILE_NOT_FOUND");
});

add("moveFile between file systems", async ({ box }) => {
  await box.writeFile("here.txt", "moved");
  const target = `/dev/shm/tongs-${Date.now()}-${Math.random()}`;
  await box.moveFile("here.txt", target);
  assert.equal((await box.readFile(target)).content, "moved");
  assert.equal((await box.exists("here.txt")).exists, false);
  await box.deleteFile(target);
});

add("listFiles", async ({ box }) => {
  await box.exec("mkdir -p l/sub 'l/with space'; echo 12345 > l/sub/x.txt; touch l/.hidden l/b l/a; chmod 750 l/b; ln -s b l/link");
  const r = await box.listFiles("l");
  assert.deepEqual(r.files.map((f) => f.name), ["a", "b", "link", "sub", "with space"]);
  assert.equal(r.count, 5);
  const b = r.files[1];
  assert.match(b.absolutePath, /^\/.*\/l\/b$/);
  assert.equal(b.relativePath, "b");
  assert.equal(b.mode, "rwxr-x---");
  assert.deepEqual(b.permissions, { readable: true, writable: true, executable: true });
  assert.ok(!Number.isNaN(Date.parse(b.modifiedAt)));
  assert.equal(r.files[2].type, "symlink");
  assert.equal(r.files[3].type, "directory");
  const deep = await box.listFiles("l", { recursive: true, includeHidden: true });
  assert.ok(deep.files.some((f) => f.relativePath === "sub/x.txt" && f.size === 6));
  assert.ok(deep.files.some((f) => f.name === ".hidden"));
  await thrown(box.listFiles("missing"), "FILE_NOT_FOUND");
  await thrown(box.listFiles("l/a"), "NOT_DIRECTORY");
});

add("writeFile takes permissions", async ({ box }) => {
  await box.writeFile("run.sh", "#!/bin/sh\necho ran\n", { permissions: "755" });
  assert.equal((await box.exec("./run.sh")).stdout, "ran\n");
  await thrown(box.writeFile("x", "", { permissions: "rwx" }), "VALIDATION_FAILED");
});

add("errors say what to do", async ({ box }) => {
  const e = await thrown(box.readFile("no/such/file"), "FILE_NOT_FOUND");
  assert.equal(e.httpStatus, 404);
  assert.equal(e.operation, "file.read");
  assert.deepEqual(e.context, { path: "no/such/file" });
  const dir = await thrown(box.readFile("."), "IS_DIRECTORY");
  assert.ok(dir.suggestion.length > 0);
  assert.equal(dir.hint, dir.suggestion);
});
