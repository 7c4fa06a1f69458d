// The list of cases, and what they share.
import assert from "node:assert/strict";

export const cases = [];

// add registers a case; run gets {box, own, session, skip}: own(x) has x disposed in the end.
export function add(name, run) {
  cases.push({ name, run });
}

// thrown is the error that a call ends with, in the SDK's shape.
export async function thrown(promise, code) {
  let got;
  try {
    got = await promise;
  } catch (e) {
    assert.equal(e.code, code, `the error is ${e.stack}`);
    assert.ok(e instanceof Error);
    assert.equal(typeof e.httpStatus, "number", "httpStatus");
    assert.ok(e.httpStatus >= 400 && e.httpStatus < 600);
    assert.equal(typeof e.operation, "string", "operation");
    assert.equal(typeof e.context, "object", "context");
    assert.ok(!Number.isNaN(Date.parse(e.timestamp)), "timestamp");
    assert.ok(e.message.length > 0);
    return e;
  }
  assert.fail(`the call gave ${JSON.stringify(got)}, and ${code} was wanted`);
}

// events reads a stream of server-sent events to its end.
export async function events(stream) {
  const all = [];
  for await (const e of eventsOf(stream)) all.push(e);
  return all;
}

export async function* eventsOf(stream) {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of stream) {
    text += decoder.decode(chunk, { stream: true });
    for (let at; (at = text.indexOf("\n\n")) >= 0; text = text.slice(at + 2)) {
      const block = text.slice(0, at);
      if (block.startsWith(":")) continue;
      assert.ok(block.startsWith("data: "), block);
      yield JSON.parse(block.slice(6));
    }
  }
  assert.equal(text, "", "the stream ends within an event");
}

// joined is the text of the events of one type.
export function joined(list, type) {
  return list.filter((e) => e.type === type).map((e) => e.data).join("");
}

// bytes reads a stream of bytes to its end.
export async function bytes(stream) {
  const parts = [];
  for await (const chunk of stream) parts.push(Buffer.from(chunk));
  return Buffer.concat(parts);
}

export async function until(what, condition, ms = 30_000) {
  const end = Date.now() + ms;
  for (;;) {
    const v = await condition();
    if (v) return v;
    if (Date.now() > end) throw new Error(`it did not come to this: ${what}`);
    await new Promise((r) => setTimeout(r, 5));
  }
}

// nap is a command that sleeps for long and that pgrep -fx finds, and no other.
export const nap = () => `sleep ${1000 + Math.floor(Math.random() * 1e6)}.${Math.floor(Math.random() * 1e9)}`;
