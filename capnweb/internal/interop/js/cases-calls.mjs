// Calls, values, objects, pipelining, callbacks, maps and errors.
import assert from "node:assert/strict";
import { hashOf, patternBytes } from "./api.mjs";
import { add, same, thrown, until } from "./suite.mjs";

// --- Calls and values

add("call", async ({ api }) => {
  assert.equal(await api.square(5), 25);
  assert.equal(await api.add("tö", "ngs"), "töngs");
  assert.equal(await api.nothing(), undefined);
  assert.equal(await api.nul(), null);
});

add("calls in one turn", async ({ api }) => {
  const all = [api.square(1), api.square(2), api.add(1, 2), api.nothing(), api.nul()];
  assert.deepEqual(await Promise.all(all), [1, 4, 3, undefined, null]);
}, { batch: true });

const plainValues = () => [
  null, true, false, 0, 1, -1, 1.5, 1e21, 1e-7, 5e-324, Number.MAX_SAFE_INTEGER, -Number.MAX_SAFE_INTEGER,
  "", "text", "é\u2028\u2029\u0000\"\\\n", "😀", [], [[]], [[[1]]], [[], []], {}, { a: [] },
  { a: { b: [1, { c: "d" }] } }, undefined, [undefined, null], NaN, Infinity, -Infinity,
  5n, -12345678901234567890123456789n, new Date(0), new Date(1700000000123),
  new Uint8Array(0), new Uint8Array([255]), new Uint8Array([1, 2]), new Uint8Array([1, 2, 3]), patternBytes(61),
];

add("values", async ({ api }) => {
  for (const v of plainValues()) same(await api.echo(v), v);
  assert.equal((await api.echo(new Date(NaN))).getTime(), NaN);
  assert.deepEqual(await api.echo({ toString: 1, toJSON: 2, constructor: 3, ok: 4 }), { ok: 4 });
});

add("values in one turn", async ({ api }) => {
  const values = plainValues();
  same(await Promise.all(values.map((v) => api.echo(v))), values);
}, { batch: true });

// A generator of values that is the same at every run.
function randomValues(seed) {
  const random = () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  const upTo = (n) => Math.floor(random() * n);
  const text = () => String.fromCodePoint(...Array.from({ length: upTo(8) }, () => [upTo(128), upTo(0xd800), 0x1f600 + upTo(80), 0x2028 + upTo(2)][upTo(4)]));
  const double = () => {
    const view = new DataView(new ArrayBuffer(8));
    view.setUint32(0, upTo(2 ** 32));
    view.setUint32(4, upTo(2 ** 32));
    const d = view.getFloat64(0);
    return Object.is(d, -0) ? 0 : d; // JSON has no negative zero
  };
  const value = (depth) => {
    switch (upTo(depth > 0 ? 14 : 11)) {
      case 0: return null;
      case 1: return undefined;
      case 2: return random() < 0.5;
      case 3: return upTo(1000) - 500;
      case 4: return double();
      case 5: return random() * 10 ** (upTo(44) - 22);
      case 6: return text();
      case 7: return BigInt(upTo(2 ** 32)) ** BigInt(upTo(6)) * (random() < 0.5 ? -1n : 1n);
      case 8: return new Date(upTo(2 ** 42) - 2 ** 41);
      case 9: return patternBytes(upTo(70), upTo(255));
      case 10: return [NaN, Infinity, -Infinity, Number.MAX_VALUE, Number.MIN_VALUE, 2 ** 53, -(2 ** 53)][upTo(7)];
      case 11: case 12: return Array.from({ length: upTo(5) }, () => value(depth - 1));
      default: return Object.fromEntries(Array.from({ length: upTo(5) }, (_, i) => [`${text()}${i}`, value(depth - 1)]));
    }
  };
  return Array.from({ length: 300 }, () => value(4));
}

add("random values", async ({ api }) => {
  for (let seed = 0; seed < 3; seed++) {
    const values = randomValues(seed);
    same(await Promise.all(values.map((v) => api.echo(v))), values);
  }
});

add("values since 0.11", async ({ api }) => {
  const values = [
    new Uint8Array([1, 2, 3]).buffer, new Int8Array([-1, 2]), new Uint8ClampedArray([1, 255]), new Int16Array([-300, 300]),
    new Uint16Array([65535]), new Int32Array([-70000]), new Uint32Array([4000000000]), new BigInt64Array([-5n]),
    new BigUint64Array([5n]), new Float32Array([1.5, -2]), new Float64Array([Math.PI]), new URL("https://example.com/a?b=c#d"),
  ];
  for (const v of values) {
    const got = await api.echo(v);
    assert.equal(got.constructor.name, v.constructor.name);
    assert.deepEqual(got, v);
  }
  const view = await api.echo(new DataView(new Uint8Array([9, 8]).buffer));
  assert.equal(view.getUint8(1), 8);
}, { needs: "0.12.0" });

add("headers", async ({ api }) => {
  const got = await api.echo(new Headers([["X-One", "1"], ["x-two", "2"], ["X-One", "3"], ["set-cookie", "a=b"], ["set-cookie", "c=d"]]));
  assert.deepEqual([...got], [...new Headers([["x-one", "1, 3"], ["x-two", "2"], ["set-cookie", "a=b"], ["set-cookie", "c=d"]])]);
});

add("large messages", async ({ api }) => {
  const text = "x".repeat(1 << 20);
  assert.equal((await api.echo(text)).length, text.length);
  const bytes = patternBytes(1 << 20);
  assert.deepEqual(hashOf(await api.echo(bytes)), hashOf(bytes));
  const numbers = Array.from({ length: 50_000 }, (_, i) => i);
  assert.deepEqual(await api.echo(numbers), numbers);
});

add("two hundred at once", async ({ api }) => {
  const all = await Promise.all(Array.from({ length: 200 }, (_, i) => (i % 3 ? api.square(i) : api.later(i * i, i % 7))));
  assert.deepEqual(all, Array.from({ length: 200 }, (_, i) => i * i));
});

add("a long silence", async ({ api }) => {
  assert.equal(await api.later("still here", 600), "still here");
});

// --- Properties

add("properties", async ({ api }) => {
  assert.deepEqual(await api.config, { name: "tongs", deep: { list: [10, 20, 30] } });
  assert.equal(await api.config.name, "tongs");
  assert.deepEqual(await api.config.deep.list, [10, 20, 30]);
  assert.equal(await api.config.missing, undefined);
  assert.equal(await api.missing, undefined);
});

add("properties in one turn", async ({ api }) => {
  assert.deepEqual(await Promise.all([api.config.name, api.config.deep, api.missing]), ["tongs", { list: [10, 20, 30] }, undefined]);
}, { batch: true });

add("below a getter", async ({ api, own }) => {
  assert.equal(await api.counter.value, 100);
  const counter = own(await api.counter);
  assert.equal(await counter.increment(1), 101);
  assert.equal(await counter.value, 101);
  const square = own(api.square.dup());
  assert.equal(await square(7), 49);
});

// --- Objects and their disposal

add("object", async ({ api }) => {
  const c = await api.makeCounter(3);
  assert.equal(await c.increment(2), 5);
  assert.equal(await c.increment(), 6);
  assert.equal(await c.value, 6);
  assert.equal(await api.incrementCounter(c, 4), 10);
  assert.equal(await api.live(), 1);
  c[Symbol.dispose]();
  await until(async () => (await api.live()) === 0, "the counter is disposed");
});

add("duplicates", async ({ api }) => {
  const c = await api.makeCounter(0);
  const d = c.dup();
  const e = d.dup();
  c[Symbol.dispose]();
  d[Symbol.dispose]();
  c[Symbol.dispose]();
  assert.equal(await e.increment(1), 1);
  assert.equal(await api.live(), 1);
  e[Symbol.dispose]();
  await until(async () => (await api.live()) === 0, "the counter is disposed");
});

add("many objects in one result", async ({ api, own }) => {
  const list = own(await api.makeCounters(20));
  assert.deepEqual(await Promise.all(list.map((c) => c.increment(1))), Array.from({ length: 20 }, (_, i) => i + 1));
  assert.equal(await api.live(), 20);
  for (const c of list.slice(0, 10)) c[Symbol.dispose]();
  await until(async () => (await api.live()) === 10, "half of them are disposed");
  list[Symbol.dispose]();
  await until(async () => (await api.live()) === 0, "all are disposed");
});

add("dispose what is not awaited", async ({ api }) => {
  api.makeCounter(1)[Symbol.dispose]();
  await until(async () => (await api.live()) === 0, "the counter is disposed");
  const hanging = api.hang();
  const error = thrown(hanging);
  hanging[Symbol.dispose]();
  assert.match((await error).message, /disposed/);
});

add("a local object passed twice", async ({ api, lib }) => {
  let disposed = 0;
  class Local extends lib.RpcTarget {
    increment(n) {
      return n + 1;
    }
    [Symbol.dispose]() {
      disposed++;
    }
  }
  const local = new Local();
  assert.deepEqual(await api.incrementBoth(local, local), [2, 2]);
  await until(() => disposed === 2, "both references are disposed");
  const stub = new lib.RpcStub(new Local());
  assert.deepEqual(await api.incrementBoth(stub, stub), [2, 2]);
  stub[Symbol.dispose]();
  await until(() => disposed === 3, "the shared object is disposed once more");
});

// --- Pipelining

add("pipelining", async ({ api, own }) => {
  assert.equal(await own(api.makeCounter(3)).increment(2), 5);
  assert.equal(await own(own(api.makeCounter(1)).another(7)).value, 7);
  assert.equal(await api.config.deep.list.missing, undefined);
  assert.equal(await api.live(), 3, "the counters live until their promises are disposed");
});

add("pipelining in one turn", async ({ api, own }) => {
  const counter = own(api.makeCounter(3));
  const other = own(counter.another(7));
  assert.deepEqual(await Promise.all([counter.increment(2), other.value, counter.increment(2)]), [5, 7, 7]);
}, { batch: true });

add("promises as arguments", async ({ api, own }) => {
  const sum = api.add(own(api.square(2)), own(api.square(3)));
  const count = api.incrementCounter(own(api.makeCounter(4)), own(api.square(3)));
  const late = api.echo({ deep: [own(api.later("x", 5))] });
  assert.deepEqual(await Promise.all([sum, count, late]), [13, 13, { deep: ["x"] }]);
}, { batch: true });

add("a late argument delays only its call", async ({ api, own }) => {
  let first = "";
  const slow = api.add(own(api.later(1, 50)), 1).then((v) => ((first ||= "slow"), v));
  const fast = api.add(1, 1).then((v) => ((first ||= "fast"), v));
  assert.deepEqual(await Promise.all([slow, fast]), [2, 2]);
  assert.equal(first, "fast");
});

add("order of calls on one object", async ({ api, own }) => {
  const c = own(api.makeCounter(0));
  const all = await Promise.all(Array.from({ length: 100 }, () => c.increment(1)));
  assert.deepEqual(all, Array.from({ length: 100 }, (_, i) => i + 1));
}, { batch: true });

add("errors travel down the pipeline", async ({ api, own }) => {
  const failed = own(api.fail("range"));
  const first = thrown(failed);
  const below = thrown(failed.a.b());
  const asArgument = thrown(api.square(failed));
  for (const e of [await first, await below, await asArgument]) {
    assert.ok(e instanceof RangeError);
    assert.equal(e.message, "test error");
  }
}, { batch: true });

add("returned promises are chained", async ({ api, own }) => {
  const c = own(await api.makeCounter(2));
  assert.deepEqual(await api.echo([own(c.increment(1)), own(c.increment(3))]), [3, 6]);
});

// --- Callbacks

add("callback", async ({ api }) => {
  assert.deepEqual(await api.callFunction((i) => i * 2, 21), { result: 42 });
  assert.deepEqual(await api.callFunction(async (i) => (await api.square(i)) + 1, 4), { result: 17 });
  assert.equal(await api.callMany((i) => i, 200), 19900);
});

add("callback that fails", async ({ api }) => {
  const e = await thrown(api.callFunction(() => {
    throw Object.assign(new RangeError("from the callback"), { code: "E_BACK" });
  }, 1));
  assert.ok(e instanceof RangeError);
  assert.equal(e.message, "from the callback");
  assert.equal(e.code, "E_BACK");
});

add("the peer's own object as an argument", async ({ api, own }) => {
  assert.deepEqual(await own(api.callSquare(api, 5)), { result: 25 });
});

add("a local object whose result is a promise", async ({ api, own, lib }) => {
  class Squarer extends lib.RpcTarget {
    square(i) {
      return Promise.resolve(i * i + 1);
    }
  }
  assert.deepEqual(await own(api.callSquare(new Squarer(), 5)), { result: 26 });
});

add("callback kept after the call", async ({ api, lib }) => {
  let disposed = 0;
  const seen = [];
  class Listener extends lib.RpcTarget {
    [Symbol.dispose]() {
      disposed++;
    }
  }
  await api.keep((i) => {
    seen.push(i);
    return i + 1;
  });
  assert.equal(await api.fire(1), 2);
  assert.equal(await api.fire(2), 3);
  await api.forget();
  await api.keep(new Listener());
  assert.equal(disposed, 0);
  await api.forget();
  await until(() => disposed === 1, "the listener is disposed");
  assert.deepEqual(seen, [1, 2]);
});

// --- map

add("map", async ({ api, own }) => {
  assert.deepEqual(await own(own(api.list(5)).map((i) => api.square(i))), [0, 1, 4, 9, 16]);
  assert.deepEqual(await own(own(api.list(2)).map((i) => ({ i, sq: api.square(i), sum: api.add(i, 10), k: [1, "x"] }))), [
    { i: 0, sq: 0, sum: 10, k: [1, "x"] },
    { i: 1, sq: 1, sum: 11, k: [1, "x"] },
  ]);
  assert.deepEqual(await own(own(api.users()).map((u) => u.name)), ["Ada", "Grace"]);
  assert.deepEqual(await own(own(api.nested()).map((row) => row.map((i) => api.square(i)))), [[1, 4], [9]]);
  assert.equal(await own(own(api.nul()).map((i) => api.square(i))), null);
  assert.equal(await own(own(api.square(3)).map((i) => api.square(i))), 81);
  assert.deepEqual(await own(own(api.list(0)).map((i) => api.square(i))), []);
});

add("map in one turn", async ({ api, own }) => {
  assert.deepEqual(await own(own(api.list(5)).map((i) => api.square(i))), [0, 1, 4, 9, 16]);
}, { batch: true });

add("map over a hundred", async ({ api, own }) => {
  const got = await own(own(api.list(100)).map((i) => api.square(i)));
  assert.deepEqual(got, Array.from({ length: 100 }, (_, i) => i * i));
});

add("map over objects", async ({ api, own }) => {
  assert.deepEqual(await own(own(api.makeCounters(3)).map((c) => c.increment(2))), [2, 3, 4]);
});

add("map with a local function", async ({ api, own, lib }) => {
  const plus = own(new lib.RpcStub((i) => i + 100));
  assert.deepEqual(await own(own(api.list(3)).map((i) => plus(i))), [100, 101, 102]);
});

add("map whose calls fail", async ({ api, own }) => {
  const e = await thrown(own(own(api.list(3)).map(() => api.fail("range"))));
  assert.equal(e.message, "test error");
});

// --- Errors

add("errors", async ({ api }) => {
  const range = await thrown(api.fail("range"));
  assert.ok(range instanceof RangeError);
  assert.equal(range.message, "test error");

  const e = await thrown(api.fail("props"));
  assert.ok(e instanceof TypeError);
  assert.equal(e.message, "boom");
  assert.deepEqual({ ...e, cause: undefined }, { code: "E_BOOM", op: "test", count: 3, detail: { list: [1, 2] }, cause: undefined });
  assert.ok(e.cause instanceof RangeError);
  assert.equal(e.cause.message, "inner");
  assert.equal(e.cause.code, "E_INNER");

  const outer = await thrown(api.fail("cause value"));
  assert.equal(outer.cause, "just text");

  const many = await thrown(api.fail("aggregate"));
  assert.ok(many instanceof AggregateError);
  assert.deepEqual(many.errors.map((x) => `${x.name}: ${x.message}`), ["Error: one", "TypeError: two"]);

  assert.equal(await thrown(api.fail("text")), "plain text");
  assert.deepEqual(await thrown(api.fail("object")), { a: 1 });
});

add("errors in one turn", async ({ api, own }) => {
  const failures = [api.fail("props"), api.fail("cause value"), api.fail("text")].map((p) => thrown(own(p)));
  const [e, outer, text] = await Promise.all(failures);
  assert.ok(e instanceof TypeError);
  assert.deepEqual([e.message, e.code, e.detail], ["boom", "E_BOOM", { list: [1, 2] }]);
  assert.ok(e.cause instanceof RangeError);
  assert.equal(e.cause.code, "E_INNER");
  assert.equal(outer.cause, "just text");
  assert.equal(text, "plain text");
}, { batch: true });

add("errors of the dispatch", async ({ api }) => {
  const missing = await thrown(api.nope(1));
  assert.ok(missing instanceof TypeError);
  assert.equal(missing.message, "'nope' is not a function.");
  assert.match((await thrown(api.config.deep.nope())).message, /'config\.deep\.nope' is not a function/);
  assert.ok((await thrown(api.missing.deeper.still)) instanceof TypeError);
});

add("errors as values", async ({ api }) => {
  const e = await api.echo({ e: Object.assign(new TypeError("a value"), { code: "E_VALUE" }) });
  assert.ok(e.e instanceof TypeError);
  assert.equal(e.e.message, "a value");
  assert.equal(e.e.code, "E_VALUE");
});

add("what cannot be sent fails alone", async ({ api }) => {
  class Odd {}
  await assert.rejects(async () => await api.echo(new Odd()), TypeError);
  assert.equal(await api.square(3), 9);
});
