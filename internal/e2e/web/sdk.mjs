// The JavaScript SDK of OpenCode against the front: sdk.mjs <url>
//
// It prints one line of JSON per step, {"name", "error"?}.
import { createOpencodeClient } from "@opencode-ai/sdk";

const client = createOpencodeClient({ baseUrl: process.argv[2], throwOnError: true });
const patience = AbortSignal.timeout(120_000);
let failed = false;
async function step(name, act) {
  if (failed) return;
  let error;
  try {
    await act();
  } catch (e) {
    failed = true;
    error = typeof e === "object" && e !== null && !(e instanceof Error) ? JSON.stringify(e) : String(e?.message ?? e);
  }
  console.log(JSON.stringify({ name, error }));
}

function check(holds, what) {
  if (!holds) throw new Error(what);
}

let session;
let events;
let parts;
const model = { providerID: "tongs", modelID: "scripted" };
const marker = `only-here-${6 * 7}`;

await step("session", async () => {
  events = await client.event.subscribe({ signal: patience });
  session = (await client.session.create({ body: { title: "from the SDK" } })).data;
  check(session.id.startsWith("ses_"), JSON.stringify(session));
});

await step("prompt and its events", async () => {
  const script = [
    { tool: "bash", args: { command: "echo only-here-$((6*7)) > marker.txt; cat marker.txt" } },
    { tool: "write", args: { filePath: "/home/user/project/src/needle.txt", content: "a haystack\nwith a needle\n" } },
    { text: "The SDK has its answer." },
  ];
  const seen = (async () => {
    const kinds = new Set();
    for await (const event of events.stream) {
      kinds.add(event.type);
      if (event.type === "session.idle" && event.properties.sessionID === session.id) return kinds;
    }
    throw new Error(`the stream of events ended: ${[...kinds]}`);
  })();
  seen.catch(() => {});
  const answer = (
    await client.session.prompt({ path: { id: session.id }, body: { model, parts: [{ type: "text", text: JSON.stringify(script) }] } })
  ).data;
  check(answer.parts.some((p) => p.type === "text" && p.text === "The SDK has its answer."), JSON.stringify(answer.parts));
  const kinds = await seen;
  for (const kind of ["message.updated", "message.part.updated", "session.status"]) check(kinds.has(kind), `no ${kind}: ${[...kinds]}`);
  const messages = (await client.session.messages({ path: { id: session.id } })).data;
  parts = messages.flatMap((m) => m.parts).filter((p) => p.type === "tool");
  check(parts.length === 2 && parts.every((p) => p.state.status === "completed"), JSON.stringify(parts));
  check(parts[0].state.output === `${marker}\n`, parts[0].state.output);
});

await step("files", async () => {
  const list = (await client.file.list({ query: { path: "" } })).data;
  check(list.some((f) => f.name === "marker.txt" && f.type === "file"), JSON.stringify(list));
  const content = (await client.file.read({ query: { path: "marker.txt" } })).data;
  check(content.content === marker, JSON.stringify(content));
});

await step("find", async () => {
  const text = (await client.find.text({ query: { pattern: "ne+dle" } })).data;
  check(text.length === 1 && text[0].path.text === "src/needle.txt" && text[0].line_number === 2, JSON.stringify(text));
  const files = (await client.find.files({ query: { query: "needle" } })).data;
  check(files[0] === "src/needle.txt", JSON.stringify(files));
});

await step("shell", async () => {
  const ran = (await client.session.shell({ path: { id: session.id }, body: { agent: "build", model, command: "cat marker.txt; id -un" } })).data;
  const messages = (await client.session.messages({ path: { id: session.id } })).data;
  const all = JSON.stringify([ran, messages]);
  check(all.includes(`${marker}\\nuser`), all.slice(-1000));
});

process.exit(0); // the stream of events is open
