// The object that one side of an interop test serves. The Go suite has its twin (api_test.go):
// the same methods with the same results.

// The bytes of every test stream: byte i is pattern(i).
export const pattern = (i) => (i * 31 + (i >> 8) * 7) & 255;

export function patternBytes(size, from = 0) {
  const b = new Uint8Array(size);
  for (let i = 0; i < size; i++) b[i] = pattern(from + i);
  return b;
}

// FNV-1a, 32 bits: enough to tell that bytes came whole and in order.
export class Hash {
  value = 0x811c9dc5;
  size = 0;
  add(chunk) {
    let h = this.value;
    for (let i = 0; i < chunk.length; i++) h = Math.imul(h ^ chunk[i], 0x01000193);
    this.value = h >>> 0;
    this.size += chunk.length;
    return this;
  }
  sum() {
    return { size: this.size, hash: this.value };
  }
}

export const hashOf = (bytes) => new Hash().add(bytes).sum();

export function patternStream(size, chunk) {
  let at = 0;
  return new ReadableStream({
    pull(controller) {
      if (at >= size) return controller.close();
      const n = Math.min(chunk, size - at);
      controller.enqueue(patternBytes(n, at));
      at += n;
    },
  });
}

export async function readAll(stream) {
  const hash = new Hash();
  const reader = stream.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return hash.sum();
    hash.add(value);
  }
}

export function makeError(kind) {
  switch (kind) {
    case "range":
      return new RangeError("test error");
    case "props": {
      const inner = Object.assign(new RangeError("inner"), { code: "E_INNER" });
      const e = new TypeError("boom", { cause: inner });
      return Object.assign(e, { code: "E_BOOM", op: "test", count: 3, detail: { list: [1, 2] } });
    }
    case "cause value":
      return new Error("outer", { cause: "just text" });
    case "aggregate":
      return new AggregateError([new Error("one"), new TypeError("two")], "many");
    case "text":
      return "plain text";
    case "object":
      return { a: 1 };
  }
  throw new Error(`no error of kind ${kind}`);
}

// makeApi returns a fresh main object whose classes are those of lib.
export function makeApi(lib) {
  const { RpcTarget } = lib;
  const tally = { made: 0, disposed: 0, cancelled: 0 };

  class Counter extends RpcTarget {
    #n;
    constructor(n) {
      super();
      this.#n = n;
      tally.made++;
    }
    increment(by = 1) {
      return (this.#n += by);
    }
    get value() {
      return this.#n;
    }
    another(n) {
      return new Counter(n);
    }
    [Symbol.dispose]() {
      tally.disposed++;
    }
  }

  class Sink extends RpcTarget {
    #hash = new Hash();
    #state = "open";
    #limit;
    constructor(limit) {
      super();
      this.#limit = limit;
    }
    stream() {
      return new WritableStream({
        write: (chunk) => {
          if (this.#limit > 0 && this.#hash.size + chunk.length > this.#limit) throw new RangeError("sink is full");
          this.#hash.add(chunk);
        },
        close: () => {
          this.#state = "closed";
        },
        abort: (reason) => {
          this.#state = `aborted: ${reason?.message ?? reason}`;
        },
      });
    }
    outcome() {
      return { ...this.#hash.sum(), state: this.#state };
    }
  }

  // Reads a stream only when told to.
  class SlowReader extends RpcTarget {
    #reader;
    #hash = new Hash();
    constructor(stream) {
      super();
      this.#reader = stream.getReader();
    }
    async take(n) {
      for (let i = 0; i < n; i++) {
        const { done, value } = await this.#reader.read();
        if (done) return { ...this.#hash.sum(), done: true };
        this.#hash.add(value);
      }
      return { ...this.#hash.sum(), done: false };
    }
  }

  return new (class Api extends RpcTarget {
    #kept = null;

    // Values
    square(i) {
      return i * i;
    }
    add(a, b) {
      return a + b;
    }
    echo(v) {
      return v;
    }
    nothing() {}
    nul() {
      return null;
    }
    later(v, ms) {
      return new Promise((resolve) => setTimeout(() => resolve(v), ms));
    }
    hang() {
      return new Promise(() => {});
    }
    list(n) {
      return Array.from({ length: n }, (_, i) => i);
    }
    nested() {
      return [[1, 2], [3]];
    }
    users() {
      return [
        { id: 1, name: "Ada" },
        { id: 2, name: "Grace" },
      ];
    }
    get config() {
      return { name: "tongs", deep: { list: [10, 20, 30] } };
    }
    get counter() {
      return new Counter(100);
    }

    // Objects
    makeCounter(n) {
      return new Counter(n);
    }
    makeCounters(n) {
      return Array.from({ length: n }, (_, i) => new Counter(i));
    }
    incrementCounter(c, n = 1) {
      return c.increment(n);
    }
    incrementBoth(a, b) {
      return Promise.all([a.increment(1), b.increment(1)]);
    }
    live() {
      return tally.made - tally.disposed;
    }

    // Callbacks
    async callFunction(f, i) {
      return { result: await f(i) };
    }
    callSquare(self, i) {
      return { result: self.square(i) };
    }
    async callMany(f, n) {
      let sum = 0;
      for (let i = 0; i < n; i++) sum += await f(i);
      return sum;
    }
    keep(f) {
      this.#kept?.[Symbol.dispose]();
      this.#kept = f.dup();
    }
    fire(i) {
      return this.#kept(i);
    }
    forget() {
      this.#kept?.[Symbol.dispose]();
      this.#kept = null;
    }

    // Errors
    fail(kind) {
      throw makeError(kind);
    }

    // Streams
    readBytes(stream) {
      return readAll(stream);
    }
    async readObjects(stream) {
      const all = [];
      for await (const v of stream) all.push(v);
      return all;
    }
    async readCounters(stream) {
      let sum = 0;
      for await (const c of stream) {
        sum += await c.increment(1);
        c[Symbol.dispose]();
      }
      return sum;
    }
    sourceBytes(size, chunk) {
      return patternStream(size, chunk);
    }
    sourceObjects(n) {
      return new ReadableStream({
        start(controller) {
          for (let i = 0; i < n; i++) controller.enqueue({ i, square: i * i });
          controller.close();
        },
      });
    }
    failing(n) {
      let i = 0;
      return new ReadableStream({
        pull(controller) {
          if (i++ < n) controller.enqueue(patternBytes(10));
          else controller.error(new RangeError("source failed"));
        },
      });
    }
    endless() {
      return new ReadableStream({
        pull(controller) {
          controller.enqueue(patternBytes(1024));
        },
        cancel() {
          tally.cancelled++;
        },
      });
    }
    cancelled() {
      return tally.cancelled;
    }
    slowReader(stream) {
      return new SlowReader(stream);
    }
    makeSink(limit) {
      return new Sink(limit);
    }
    async writeTo(stream, chunks, size) {
      const writer = stream.getWriter();
      for (let i = 0; i < chunks; i++) await writer.write(patternBytes(size, i * size));
      await writer.close();
      return chunks * size;
    }
    async abortTo(stream) {
      const writer = stream.getWriter();
      await writer.write(patternBytes(10));
      await writer.abort(new Error("writer gave up"));
    }

    // Blobs and HTTP
    echoBlob(blob) {
      return blob;
    }
    makeBlob(size, type) {
      return new Blob([patternBytes(size)], { type });
    }
    async describeBlob(blob) {
      return { type: blob.type, ...hashOf(new Uint8Array(await blob.arrayBuffer())) };
    }
    async describeRequest(request) {
      return {
        method: request.method,
        url: request.url,
        header: request.headers.get("x-test"),
        ...hashOf(new Uint8Array(await request.arrayBuffer())),
      };
    }
    makeResponse(status, size) {
      const body = size > 0 ? patternStream(size, 10_000) : null;
      return new Response(body, { status, headers: { "x-test": "yes" } });
    }
    async describeResponse(response) {
      return {
        status: response.status,
        header: response.headers.get("x-test"),
        ...hashOf(new Uint8Array(await response.arrayBuffer())),
      };
    }
  })();
}
