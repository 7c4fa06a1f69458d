// Runs a command, a server and a piece of Python in a sandbox of its own:
//
//   node --experimental-strip-types example.ts "$TONGS_HOME/api-token"
import { readFileSync } from "node:fs";
import { newWebSocketRpcSession } from "capnweb";
import type { Endpoint, SandboxError } from "./tongs";

const token = readFileSync(process.argv[2]!, "utf8").trim();
// As browsers have to: the token goes along as a subprotocol. Never write it into the URL.
const socket = new WebSocket("ws://127.0.0.1:8788/rpc", [`tongs.bearer.${token}`]);
const tongs = newWebSocketRpcSession<Endpoint>(socket);

const box = await tongs.create({ name: "example", reuse: true });
const uname = await box.exec("uname -a", { timeout: 10_000 });
console.log(uname.stdout, uname.exitCode);

await box.writeFile("server.js", `require("http").createServer((q, r) => r.end("hello")).listen(3000)`);
const server = await box.startProcess("node server.js", { onOutput: (stream, data) => console.log(stream, data) });
await server.waitForPort(3000, { timeout: 10_000 });
const answer = await box.containerFetch("http://localhost/", 3000);
console.log(answer.status, await answer.text());
await server.kill();

try {
  await box.readFile("missing.txt");
} catch (e) {
  const error = e as SandboxError;
  console.log(error.code, error.httpStatus, error.suggestion);
}

const run = await box.runCode("[n * n for n in range(5)]", { language: "python" });
console.log(run.results[0]?.text ?? run.error?.message);

for await (const chunk of await box.processes.logs(server.id, { since: 0 })) {
  console.log(chunk.stream, chunk.data?.length, chunk.info?.exit?.signal);
}
await box.destroy();
tongs[Symbol.dispose]();
