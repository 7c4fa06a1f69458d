// The list of cases: what the JavaScript client does to a peer that serves the object of api.mjs (or
// its twin in Go). Each ends with everything disposed: the driver then looks at both sides' tables.
import assert from "node:assert/strict";

const cases = [];

// add registers a case. needs names the oldest library version whose client can do it; batch marks
// those that make all their calls in one turn and so also work in an HTTP batch.
export function add(name, run, { needs = "0.8.0", batch = false } = {}) {
  cases.push({ name, run, needs, batch });
}

export function list(version) {
  return cases.filter((c) => version !== "0.8.0" || c.needs === "0.8.0").map(({ name, batch }) => ({ name, batch }));
}

// run runs one case against api, a stub of the peer's main object.
export async function run(name, api, lib) {
  const found = cases.find((c) => c.name === name);
  if (!found) throw new Error(`no case ${name}`);
  const owned = [];
  const own = (x) => {
    owned.push(x);
    return x;
  };
  try {
    await found.run({ api, lib, own });
  } finally {
    for (const x of owned.reverse()) x[Symbol.dispose]();
  }
}

export async function until(condition, what, ms = 5000) {
  const end = Date.now() + ms;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`still not so after ${ms} ms: ${what}`);
    await new Promise((r) => setTimeout(r, 1));
  }
}

// same is deepEqual, but for Buffer, which is how the library delivers a Uint8Array on node.
export function same(got, want) {
  assert.deepEqual(unbuffer(got), want);
}

function unbuffer(v) {
  if (Buffer.isBuffer(v)) return new Uint8Array(v);
  if (Array.isArray(v)) return v.map(unbuffer);
  if (v != null && Object.getPrototypeOf(v) === Object.prototype) {
    return Object.fromEntries(Object.entries(v).map(([k, x]) => [k, unbuffer(x)]));
  }
  return v;
}

export async function thrown(promise) {
  try {
    await promise;
  } catch (e) {
    return e;
  }
  assert.fail("the call did not fail");
}
