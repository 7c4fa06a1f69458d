// node suite.mjs ws://… [part of a name]…: runs the cases, a few at a time, each with a sandbox and a session of
// its own, and prints a line of JSON for each.
import { cases } from "./case.mjs";
import { connect, idle } from "./session.mjs";
import "./commands.mjs";
import "./processes.mjs";
import "./files.mjs";
import "./native.mjs";
import "./sessions.mjs";
import "./badinput.mjs";
import "./defects.mjs";

const [url, ...wanted] = process.argv.slice(2);
const queue = cases.filter((c) => wanted.length === 0 || wanted.some((w) => c.name.includes(w)));
const limit = 60_000;

async function run(c) {
  const began = performance.now();
  const verdict = { name: c.name };
  const session = connect(url);
  const owned = [session.api];
  const own = (x) => (owned.push(x), x);
  try {
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`not done after ${limit} ms`)), limit);
    });
    const work = (async () => {
      const box = own(await session.api.create());
      await c.run({ box, own, session, skip: (why) => { throw Object.assign(new Error(why), { skip: true }); } });
      for (const x of owned.splice(1).reverse()) x[Symbol.dispose]?.();
      await idle(session);
    })();
    await Promise.race([work, late]).finally(() => clearTimeout(timer));
  } catch (e) {
    if (e?.skip) verdict.skipped = e.message;
    else verdict.error = `${e?.stack ?? e}${e?.code ? ` [${e.code}]` : ""}`;
  }
  await session.close();
  verdict.ms = performance.now() - began;
  console.log(JSON.stringify(verdict));
}

async function worker() {
  for (let c; (c = queue.shift()); ) await run(c);
}

process.on("unhandledRejection", (e) => console.error("unhandled", e));
await Promise.all([worker(), worker(), worker()]);
process.exit(0);
