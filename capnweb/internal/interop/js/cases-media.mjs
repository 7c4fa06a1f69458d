// Streams, blobs, requests and responses.
import assert from "node:assert/strict";
import { Hash, hashOf, patternBytes, patternStream, readAll } from "./api.mjs";
import { add, same, thrown, until } from "./suite.mjs";

// --- Streams

const MiB = 1 << 20;

add("stream of bytes up", async ({ api }) => {
  const expected = hashOf(patternBytes(MiB));
  assert.deepEqual(await api.readBytes(patternStream(MiB, 32 << 10)), expected);
  assert.deepEqual(await api.readBytes(patternStream(0, 10)), hashOf(new Uint8Array(0)));
  assert.deepEqual(await api.readBytes(patternStream(1, 10)), hashOf(patternBytes(1)));
});

add("stream of bytes down", async ({ api }) => {
  assert.deepEqual(await readAll(await api.sourceBytes(MiB, 32 << 10)), hashOf(patternBytes(MiB)));
  assert.deepEqual(await readAll(await api.sourceBytes(0, 10)), hashOf(new Uint8Array(0)));
});

const objectStream = (values) =>
  new ReadableStream({
    start(controller) {
      for (const v of values) controller.enqueue(v);
      controller.close();
    },
  });

add("stream of objects", async ({ api }) => {
  const values = [1, "two", null, { three: [3] }, new Date(4), 5n, new Uint8Array([6]), undefined, [[]], []];
  same(await api.readObjects(objectStream(values)), values);
  const down = [];
  for await (const v of await api.sourceObjects(100)) down.push(v);
  assert.deepEqual(down, Array.from({ length: 100 }, (_, i) => ({ i, square: i * i })));
});

add("stream of many small chunks", async ({ api }) => {
  const values = Array.from({ length: 2000 }, (_, i) => i);
  assert.deepEqual(await api.readObjects(objectStream(values)), values);
});

add("objects in the chunks of a stream", async ({ api, lib }) => {
  let disposed = 0;
  class Local extends lib.RpcTarget {
    #n;
    constructor(n) {
      super();
      this.#n = n;
    }
    increment(by) {
      return this.#n + by;
    }
    [Symbol.dispose]() {
      disposed++;
    }
  }
  assert.equal(await api.readCounters(objectStream([new Local(1), new Local(2), new Local(3)])), 9);
  await until(() => disposed === 3, "the objects in the chunks are disposed");
}, { needs: "0.12.0" });

add("writable stream as an argument", async ({ api }) => {
  const hash = new Hash();
  let closed = false;
  const sink = new WritableStream({
    write: (c) => void hash.add(c),
    close: () => void (closed = true),
  });
  assert.equal(await api.writeTo(sink, 50, 5000), 250_000);
  assert.ok(closed);
  assert.deepEqual(hash.sum(), hashOf(patternBytes(250_000)));
});

add("writable stream as an argument, given up", async ({ api }) => {
  let reason;
  const sink = new WritableStream({ abort: (r) => void (reason = r) });
  await api.abortTo(sink);
  await until(() => reason !== undefined, "the sink is aborted");
  assert.match(String(reason?.message ?? reason), /writer gave up/);
});

add("writable stream as a result", async ({ api, own }) => {
  const sink = own(await api.makeSink(0));
  const writer = (await sink.stream()).getWriter();
  for (let i = 0; i < 64; i++) await writer.write(patternBytes(4096, i * 4096));
  await writer.close();
  assert.deepEqual(await sink.outcome(), { ...hashOf(patternBytes(64 * 4096)), state: "closed" });
});

add("writable stream as a result, given up", async ({ api, own }) => {
  const sink = own(await api.makeSink(0));
  const writer = (await sink.stream()).getWriter();
  await writer.write(patternBytes(10));
  await writer.abort(new Error("changed my mind"));
  await until(async () => (await sink.outcome()).state !== "open", "the sink is aborted");
  assert.equal((await sink.outcome()).state, "aborted: changed my mind");
});

add("writable stream that fails", async ({ api, own }) => {
  const sink = own(await api.makeSink(10_000));
  const writer = (await sink.stream()).getWriter();
  writer.closed.catch(() => {});
  const e = await thrown((async () => {
    for (let i = 0; i < 10_000; i++) await writer.write(patternBytes(1000));
    await writer.close();
  })());
  assert.match(e.message, /sink is full/);
});

add("the reader holds the writer back", async ({ api, own }) => {
  const chunk = 16 << 10;
  const total = 4 * MiB;
  let made = 0;
  const stream = new ReadableStream({
    pull(controller) {
      if (made >= total) return controller.close();
      controller.enqueue(patternBytes(chunk, made));
      made += chunk;
    },
  });
  const reader = own(await api.slowReader(stream));
  await reader.take(1);
  for (let before = -1, still = 0; still < 20; ) {
    await api.square(1);
    still = made === before ? still + 1 : 0;
    before = made;
  }
  assert.ok(made <= 2 * MiB, `${made} bytes were taken from the source for a reader that wants none`);
  for (;;) {
    const r = await reader.take(10);
    if (r.done) {
      assert.deepEqual({ size: r.size, hash: r.hash }, hashOf(patternBytes(total)));
      break;
    }
  }
});

add("a reader that stops", async ({ api }) => {
  const reader = (await api.endless()).getReader();
  for (let i = 0; i < 3; i++) assert.equal((await reader.read()).value.length, 1024);
  await reader.cancel(new Error("enough"));
  await until(async () => (await api.cancelled()) === 1, "the source is cancelled");
});

add("a stream nobody wants", async ({ api }) => {
  let cancelled = false;
  const stream = new ReadableStream({
    pull: (c) => c.enqueue(patternBytes(1000)),
    cancel: () => void (cancelled = true),
  });
  assert.equal(await api.nothing(stream), undefined);
  await until(() => cancelled, "the source is cancelled");
});

add("a source that fails, up", async ({ api }) => {
  let left = 3;
  const stream = new ReadableStream({
    pull(controller) {
      if (left-- > 0) controller.enqueue(patternBytes(10));
      else controller.error(new RangeError("source failed"));
    },
  });
  const e = await thrown(api.readBytes(stream));
  assert.match(e.message, /source failed/);
});

add("a source that fails, down", async ({ api }) => {
  const e = await thrown(readAll(await api.failing(3)));
  assert.match(e.message, /source failed/);
});

add("eight streams at once", async ({ api }) => {
  const size = 256 << 10;
  const expected = hashOf(patternBytes(size));
  const jobs = [];
  for (let i = 0; i < 4; i++) {
    jobs.push(api.readBytes(patternStream(size, 10_000)));
    jobs.push(api.sourceBytes(size, 10_000).then(readAll));
  }
  for (const got of await Promise.all(jobs)) assert.deepEqual(got, expected);
});

// --- Blobs and HTTP messages

const describe = async (blob) => ({ type: blob.type, ...hashOf(new Uint8Array(await blob.arrayBuffer())) });

add("blobs", async ({ api }) => {
  for (const size of [0, 1, 300_000]) {
    const blob = new Blob([patternBytes(size)], { type: "application/x-test" });
    assert.deepEqual(await api.describeBlob(blob), await describe(blob));
    assert.deepEqual(await describe(await api.makeBlob(size, "image/x-test")), {
      type: "image/x-test",
      ...hashOf(patternBytes(size)),
    });
    assert.deepEqual(await describe(await api.echoBlob(blob)), await describe(blob));
  }
});

add("blobs within values", async ({ api }) => {
  const blob = (text) => new Blob([text], { type: "text/plain" });
  const got = await api.echo({ a: blob("one"), list: [blob("two")] });
  assert.equal(await got.a.text(), "one");
  assert.equal(await got.list[0].text(), "two");
});

add("requests", async ({ api }) => {
  const headers = { "X-Test": "yes" };
  assert.deepEqual(await api.describeRequest(new Request("http://example.com/a?b=c", { headers })), {
    method: "GET", url: "http://example.com/a?b=c", header: "yes", ...hashOf(new Uint8Array(0)),
  });
  assert.deepEqual(await api.describeRequest(new Request("http://example.com/p", { method: "POST", headers, body: patternBytes(1000) })), {
    method: "POST", url: "http://example.com/p", header: "yes", ...hashOf(patternBytes(1000)),
  });
  const streamed = new Request("http://example.com/s", { method: "PUT", headers, body: patternStream(200_000, 7000), duplex: "half" });
  assert.deepEqual(await api.describeRequest(streamed), {
    method: "PUT", url: "http://example.com/s", header: "yes", ...hashOf(patternBytes(200_000)),
  });
});

add("responses", async ({ api }) => {
  const empty = await api.makeResponse(204, 0);
  assert.equal(empty.status, 204);
  assert.equal(empty.headers.get("x-test"), "yes");
  const full = await api.makeResponse(201, 200_000);
  assert.equal(full.status, 201);
  assert.deepEqual(hashOf(new Uint8Array(await full.arrayBuffer())), hashOf(patternBytes(200_000)));
  assert.deepEqual(await api.describeResponse(new Response(patternBytes(5000), { status: 418, headers: { "X-Test": "ja" } })), {
    status: 418, header: "ja", ...hashOf(patternBytes(5000)),
  });
});
