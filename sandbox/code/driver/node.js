// The interpreter of a JavaScript or TypeScript context. It speaks what the one for
// Python does; see there.
//
// The code runs on the main thread, in replMode: a name can be declared again, there
// is await at the top, and the value of the last expression comes back. A worker
// has the socket, so that it can be asked to interrupt code that never returns.
"use strict";
const { Worker, isMainThread, parentPort, workerData } = require("node:worker_threads");
const inspector = require("node:inspector");
const util = require("node:util");

const MAX_DATA = 16 << 20; // characters of one representation
const clip = s => (s.length <= MAX_DATA ? s : s.slice(0, MAX_DATA) + "…");

function interpreter() {
	const [, , path, ready, language] = process.argv;
	const types = require("node:module").stripTypeScriptTypes;
	const worker = new Worker(__filename, { workerData: { path, ready, types: Boolean(types) } });
	const session = new inspector.Session();
	session.connect();

	process.argv.length = 1;
	globalThis.require = require("node:module").createRequire(process.cwd() + "/");
	process.on("SIGINT", () => {}); // for the commands that the code waits for
	const complain = e => process.stderr.write(`Uncaught ${util.inspect(e)}\n`);
	process.on("uncaughtException", complain);
	process.on("unhandledRejection", complain);

	// What an evaluation gives is reached by the inspector's name for it.
	let taken;
	const key = Symbol("interpreter");
	globalThis[key] = { take: v => { taken = v; } };
	let self;
	const symbols = "Object.getOwnPropertySymbols(globalThis).map(s => globalThis[s]).find(o => o && o.take)";
	session.post("Runtime.evaluate", { expression: symbols }, (_, r) => { self = r.result.objectId; });
	delete globalThis[key];
	const take = remote => {
		const { objectId, value, unserializableValue } = remote;
		const argument = objectId ? { objectId } : unserializableValue ? { unserializableValue } : { value };
		taken = undefined;
		session.post("Runtime.callFunctionOn", { objectId: self, functionDeclaration: "function (v) { this.take(v); }", arguments: [argument] }, () => {});
		const v = taken;
		taken = undefined;
		return v;
	};

	let current = "";
	const result = (data, final) => worker.postMessage({ event: "result", id: current, final, data });
	globalThis.display = (...values) => values.forEach(v => result(describe(v), false));
	Object.assign(globalThis.display, {
		html: s => result({ "text/html": clip(String(s)) }, false),
		markdown: s => result({ "text/markdown": clip(String(s)) }, false),
		svg: s => result({ "image/svg+xml": clip(String(s)) }, false),
		png: b => result({ "image/png": Buffer.from(b).toString("base64") }, false),
		jpeg: b => result({ "image/jpeg": Buffer.from(b).toString("base64") }, false),
	});

	worker.on("message", ({ id, code = "", noop }) => {
		if (noop) return worker.postMessage({ event: "noop", id });
		current = id;
		const finish = error => {
			if (error) worker.postMessage({ event: "error", id, ...error });
			worker.postMessage({ event: "over", id });
		};
		if (language === "typescript") {
			try {
				code = types(code, { mode: "transform" });
			} catch (e) {
				return finish(explain(e));
			}
		}
		session.post("Runtime.evaluate", { expression: code, replMode: true, awaitPromise: true, objectGroup: "run", userGesture: false }, (failed, r) => {
			try {
				if (failed) return finish({ name: "InterruptedError", message: "the run was interrupted", traceback: [] });
				const value = take(r.exceptionDetails ? r.exceptionDetails.exception ?? r.result : r.result);
				if (r.exceptionDetails) return finish(explain(value));
				if (value !== undefined) result(describe(value), true);
				finish();
			} catch (e) { // an inspect function of the code's own has thrown
				finish(explain(e));
			} finally {
				session.post("Runtime.releaseObjectGroup", { objectGroup: "run" }, () => {});
			}
		});
	});
}

function describe(value) {
	const data = { "text/plain": clip(util.inspect(value, { depth: 6, maxArrayLength: 1000, maxStringLength: MAX_DATA })) };
	if (value !== null && typeof value !== "function" && typeof value !== "symbol") {
		try {
			const json = JSON.stringify(value);
			if (json !== undefined && json.length <= MAX_DATA) data["application/json"] = json;
		} catch { } // it has no JSON
	}
	return data;
}

function explain(e) {
	if (!util.types.isNativeError(e)) return { name: "Error", message: clip(util.inspect(e)), traceback: [] };
	const own = line => !/^ +at .*(node:inspector|node:internal|tongs-code-)/.test(line);
	let message = clip(String(e.message));
	if (e.code === "ERR_VM_DYNAMIC_IMPORT_CALLBACK_MISSING" || /^Cannot use import statement/.test(message)) message += " (in a context, use require)";
	return { name: String(e.name), message, traceback: clip(String(e.stack)).split("\n").filter(own).slice(0, 200) };
}

function control() {
	const fs = require("node:fs");
	const session = new inspector.Session();
	session.connectToMainThread();
	let conn = null, current = "", interrupted = false;
	const jobs = [];
	const send = m => { if (conn) conn.write(JSON.stringify(m) + "\n"); };
	const mark = id => {
		for (const fd of [1, 2]) {
			for (let data = Buffer.from(`\0tongs:${id}\0`); data.length;) {
				try {
					data = data.subarray(fs.writeSync(fd, data));
				} catch (e) {
					if (e.code !== "EAGAIN") break;
					Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
				}
			}
		}
	};
	const next = () => {
		if (current || !jobs.length) return;
		const { id, code } = jobs.shift();
		current = id;
		interrupted = false;
		parentPort.postMessage({ id, code });
	};
	const over = id => {
		if (id !== current) return; // it has been given up already
		current = "";
		mark(id);
		send({ event: "done", id });
		next();
	};
	parentPort.on("message", m => {
		if (m.event === "over") return over(m.id);
		if (m.event === "noop") { // the main thread is free, and the run did not end
			if (m.id !== current) return;
			send({ event: "error", id: m.id, name: "InterruptedError", message: "the run was interrupted", traceback: [] });
			return over(m.id);
		}
		if (m.id === current) send(m);
	});
	const interrupt = id => {
		if (id !== current || interrupted) return;
		interrupted = true;
		try {
			process.kill(0, "SIGINT");
		} catch { } // then there is nobody else in the group
		// It ends what runs, or else what runs next, which is nothing of the code's.
		session.post("Runtime.terminateExecution", () => {
			parentPort.postMessage({ id, noop: true });
			parentPort.postMessage({ id, noop: true });
		});
	};
	const server = require("node:net").createServer(c => {
		if (conn) conn.destroy();
		conn = c;
		c.on("error", () => {});
		c.on("close", () => { if (conn === c) conn = null; });
		send({ event: "hello", version: process.version.slice(1), typescript: workerData.types });
		require("node:readline").createInterface({ input: c }).on("line", line => {
			let m;
			try {
				m = JSON.parse(line);
			} catch {
				return c.destroy();
			}
			if (m.op === "run") {
				jobs.push(m);
				next();
			} else if (m.op === "interrupt") {
				interrupt(m.id);
			}
		});
	});
	server.listen(workerData.path, () => mark(workerData.ready));
}

if (isMainThread) interpreter();
else control();
