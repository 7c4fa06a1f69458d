// Types of the objects that a Tongs endpoint serves over Cap'n Web, for use with the npm package
// "capnweb":
//
//   import { newWebSocketRpcSession } from "capnweb";
//   import type { Endpoint } from "./tongs";
//   const tongs = newWebSocketRpcSession<Endpoint>(socket);
//   const box = await tongs.create({ name: "demo" });
//   console.log((await box.exec("uname -a")).stdout);
//
// Everything is called by way of stubs: each method returns a promise, and on that promise the next
// method can be called at once, without a round trip. Stubs, and results that hold functions (a Process, a
// session), are let go of with [Symbol.dispose](), or all together by closing the connection.
//
// Paths are those inside the sandbox; relative ones begin at the project directory. Times are
// milliseconds unless they are said to be something else. What fails, fails with a SandboxError.

import type { RpcTarget } from "capnweb";

/** An error of an endpoint or a sandbox. */
export interface SandboxError extends Error {
  /** What kind of failure: "FILE_NOT_FOUND", "PROCESS_READY_TIMEOUT", "NOT_SUPPORTED", … */
  code: string;
  /** The status with which HTTP would say it. */
  httpStatus: number;
  /** What was being done: "file.read", "command.execute", … */
  operation: string;
  /** What it was done to: {path}, {command}, {processId}, … */
  context: Record<string, unknown>;
  /** ISO 8601. */
  timestamp: string;
  /** What to do about it. */
  suggestion?: string;
  op?: string;
  hint?: string;
}

/** A stream of server-sent events in bytes, each `data: {"type": …}` and a blank line. Comments are signs of life. */
export type EventStream = ReadableStream<Uint8Array>;

export type Stream = "stdout" | "stderr";

// ---- the endpoint

/** The main object of an endpoint. A token that is good for one sandbox gets that sandbox only. */
export interface Endpoint extends RpcTarget {
  version(): { tongs: string; api: number; sandbox?: string };
  create(options?: CreateOptions): Sandbox;
  /** By name, id or OpenCode session, or the unique beginning of one. */
  get(ref?: string): Sandbox;
  sandbox(ref?: string): Sandbox;
  sandboxes(options?: { limit?: number; cursor?: string; labels?: Record<string, string> }): { sandboxes: SandboxInfo[]; next?: string };
  inspect(ref?: string): SandboxInfo;
  destroy(ref?: string): SandboxInfo;
  /** Writes what runs to the host's disk and ends it; the next use goes on from there. Only where gVisor runs it. */
  checkpoint(ref?: string): SandboxInfo;
  /** Goes on from the checkpoint now; with `fresh`, starts from the files alone and removes it. */
  restore(ref?: string, fresh?: boolean): SandboxInfo;
  issueToken(options: { sandbox: string; expires?: Date; note?: string }): TokenInfo;
  tokens(): TokenInfo[];
  revokeToken(id: string): boolean;
}

export interface CreateOptions {
  /** 1 to 40 of a-z, 0-9 and "-". Default: made up. */
  name?: string;
  /** Give the sandbox of that name if there is one. */
  reuse?: boolean;
  /** What it is made from: "host", or an image such as "debian:12", which is pulled. Default: as configured. */
  image?: string;
  labels?: Record<string, string>;
  env?: Record<string, string>;
  /** What runs it. Default: as configured. */
  driver?: "linux" | "gvisor" | "runc" | "crun";
  /** The id of a project's files that it starts with, as `describe` gives it of another sandbox. */
  project?: string;
  /** Its commands may also run as its root: `user: "root"`. */
  root?: boolean;
  memoryBytes?: number;
  pids?: number;
  cpus?: number;
  tmpBytes?: number;
  diskBytes?: number;
  diskFiles?: number;
}

export interface SandboxInfo {
  id: string;
  name?: string;
  session?: string;
  title?: string;
  state: "running" | "stopped" | "damaged";
  damage?: string;
  created: string;
  image: string;
  /** The id of the project's files that it was made with. */
  project?: string;
  /** What runs it: "linux", "gvisor", "runc" or "crun". */
  driver?: string;
  /** When the checkpoint was made from which it goes on at its next use. */
  checkpoint?: string;
  labels?: Record<string, string>;
  guest?: GuestInfo;
}

export interface TokenInfo {
  id: string;
  /** Given once, by issueToken. */
  token?: string;
  sandbox: string;
  created: string;
  expires: string;
  note?: string;
}

export interface GuestInfo {
  protocol: number;
  /** Changes whenever the sandbox is started anew, and its processes are gone. */
  incarnation: string;
  version: string;
  pid: number;
  hostname: string;
  user: string;
  home: string;
  project: string;
  uptimeMs: number;
  processes: number;
  memoryBytes: number;
}

// ---- what a sandbox and a session have in common

export interface CommandOptions {
  /** Then the command's group is ended: SIGTERM, two seconds later SIGKILL. */
  timeout?: number;
  cwd?: string;
  /** null or undefined takes a variable out. */
  env?: Record<string, string | null | undefined>;
  /** "base64" gives output byte for byte. */
  encoding?: "utf-8" | "utf8" | "base64";
  /** A name of the caller's own, for cancel and killProcess: A-Z a-z 0-9 . _ : - */
  processId?: string;
  /** The whole of standard input. Default: empty. */
  stdin?: string;
}

export interface ExecOptions extends CommandOptions {
  /** Of each stream, in bytes; at most, and by default, 8 MiB. More is cut: see truncated. */
  maxOutput?: number;
  stream?: boolean;
  onOutput?: (stream: Stream, data: string) => void;
  onComplete?: (result: ExecResult) => void;
  onError?: (error: Error) => void;
}

export interface ExecResult {
  success: boolean;
  /** Of a command that a signal has ended: 128 and the signal's number. */
  exitCode: number;
  stdout: string;
  stderr: string;
  command: string;
  duration: number;
  timestamp: string;
  sessionId?: string;
  timedOut?: boolean;
  truncated?: boolean;
}

export type ProcessStatus = "running" | "completed" | "failed" | "killed" | "error";

export interface ProcessOptions extends CommandOptions {
  onStart?: (process: Process) => void;
  onOutput?: (stream: Stream, data: string) => void;
  onExit?: (code: number) => void;
  onError?: (error: Error) => void;
}

export interface Process {
  id: string;
  pid: number;
  command: string;
  status: ProcessStatus;
  startTime: Date;
  endTime?: Date;
  exitCode?: number;
  sessionId?: string;
  kill: (signal?: string | number) => void;
  getStatus: () => ProcessStatus;
  getLogs: () => ProcessLogs;
  /** A RegExp cannot travel: send {source: re.source, flags: re.flags}. */
  waitForLog: (pattern: string | { source: string; flags?: string }, timeout?: number) => { line: string; match?: string[]; offset: number };
  waitForPort: (port: number, options?: WaitForPortOptions) => void;
  waitForExit: (timeout?: number) => { exitCode: number; signal?: string; timedOut?: boolean };
}

export interface WaitForPortOptions {
  mode?: "http" | "tcp";
  path?: string;
  status?: number | { min?: number; max?: number };
  timeout?: number;
  interval?: number;
}

export interface ProcessLogs {
  stdout: string;
  stderr: string;
  processId: string;
  truncated?: boolean;
  /** Where the log ends now: streamProcessLogs goes on from here. */
  offset: number;
}

export interface FileResult {
  success: boolean;
  path: string;
  timestamp: string;
}

export interface ReadFileResult extends FileResult {
  encoding: "utf-8" | "base64";
  content: string;
  isBinary: boolean;
  mimeType: string;
  size: number;
}

export interface FileEntry {
  name: string;
  absolutePath: string;
  relativePath: string;
  type: FileType;
  size: number;
  modifiedAt: string;
  /** "rwxr-xr-x" */
  mode: string;
  permissions: { readable: boolean; writable: boolean; executable: boolean };
}

export type FileType = "file" | "directory" | "symlink" | "other";

export interface GitOptions {
  branch?: string;
  targetDir?: string;
  depth?: number;
  env?: Record<string, string | null | undefined>;
  cloneTimeoutMs?: number;
  onProgress?: (progress: { phase: string; remote?: boolean; percent: number; done: number; total: number }) => void;
}

export interface GitResult {
  success: boolean;
  repoUrl: string;
  branch: string;
  targetDir: string;
  commit: string;
  timestamp: string;
  exitCode: number;
}

export interface CodeContext {
  id: string;
  language: "python" | "javascript" | "typescript";
  cwd: string;
  createdAt: Date;
  lastUsed: Date;
}

export interface RunCodeOptions {
  /** Default: one context for each language. */
  context?: { id: string };
  language?: "python" | "javascript" | "typescript" | "py" | "js" | "ts";
  timeout?: number;
  onStdout?: (message: { text: string; timestamp: number; error: boolean }) => void;
  onStderr?: (message: { text: string; timestamp: number; error: boolean }) => void;
  onResult?: (result: CodeResult) => void;
  onError?: (error: CodeError) => void;
}

/** A value in all the forms that it has. Charts come as images: there is no `chart` with their data. */
export interface CodeResult {
  text?: string;
  html?: string;
  markdown?: string;
  svg?: string;
  latex?: string;
  javascript?: string;
  /** base64 */
  png?: string;
  /** base64 */
  jpeg?: string;
  json?: unknown;
  /** The names of the forms that it has. */
  formats: string[];
}

export interface CodeError {
  name: string;
  message: string;
  traceback: string[];
}

export interface Execution {
  code: string;
  logs: { stdout: string[]; stderr: string[] };
  results: CodeResult[];
  error?: CodeError;
  executionCount: number;
  truncated?: boolean;
  /** The interpreter before had ended: this one knows nothing of it. */
  fresh?: boolean;
}

/** A terminal: what it shows is read from readable, what is typed goes to writable. */
export interface TerminalConnection {
  id: string;
  pid: number;
  readable: ReadableStream<Uint8Array>;
  writable: WritableStream<Uint8Array | string>;
  resize: (cols: number, rows: number) => void;
  kill: (signal?: string | number) => void;
  exited: () => { exitCode: number; signal?: string; timedOut?: boolean };
}

export interface TerminalOptions {
  id?: string;
  cols?: number;
  rows?: number;
  shell?: string;
  /** A program and its arguments in place of a shell. */
  command?: string[];
  cwd?: string;
  env?: Record<string, string | null | undefined>;
}

/** The functions that a sandbox and its sessions share. */
export interface Commands {
  exec(command: string, options?: ExecOptions): ExecResult;
  /** start, stdout, stderr, complete, error. */
  execStream(command: string, options?: CommandOptions): EventStream;
  startProcess(command: string, options?: ProcessOptions): Process;
  listProcesses(): Process[];
  getProcess(id: string): Process | null;
  killProcess(id: string, signal?: string | number): void;
  killAllProcesses(): number;
  cleanupCompletedProcesses(): number;
  getProcessLogs(id: string): ProcessLogs;
  /** process_info, stdout, stderr, dropped, exit. */
  streamProcessLogs(id: string, options?: { since?: number }): EventStream;

  writeFile(path: string, content: string | Uint8Array | ReadableStream<Uint8Array>, options?: { encoding?: "utf-8" | "base64"; permissions?: number | string }): FileResult & { bytesWritten: number };
  /** At most 16 MiB; longer ones by readFileStream or files.readStream. (With the encoding "none" the content is a ReadableStream of bytes.) */
  readFile(path: string, options?: { encoding?: "utf-8" | "base64" }): ReadFileResult;
  /** metadata, chunk, complete, error. */
  readFileStream(path: string, options?: { encoding?: "utf-8" | "base64" }): EventStream;
  mkdir(path: string, options?: { recursive?: boolean }): FileResult & { recursive: boolean };
  deleteFile(path: string): FileResult;
  renameFile(oldPath: string, newPath: string): FileResult & { newPath: string };
  moveFile(source: string, destination: string): FileResult & { newPath: string };
  exists(path: string): FileResult & { exists: boolean };
  listFiles(path: string, options?: { recursive?: boolean; includeHidden?: boolean }): FileResult & { files: FileEntry[]; count: number; truncated?: boolean };
  /** watching, event, overflow, stopped, error. */
  watch(path: string, options?: { recursive?: boolean; include?: string | string[]; exclude?: string | string[] }): EventStream;

  gitCheckout(repoUrl: string, options?: GitOptions): GitResult;
  setEnvVars(env: Record<string, string | null | undefined>): void;

  createCodeContext(options?: { id?: string; language?: RunCodeOptions["language"]; cwd?: string; envVars?: Record<string, string | null | undefined>; timeout?: number }): CodeContext;
  runCode(code: string, options?: RunCodeOptions): Execution;
  /** stdout, stderr, result, error, execution_complete. */
  runCodeStream(code: string, options?: RunCodeOptions): EventStream;
  listCodeContexts(): CodeContext[];
  deleteCodeContext(id: string): void;

  terminal(options?: TerminalOptions): TerminalConnection;

  /** NOT_SUPPORTED. */
  mountBucket(bucket: string, path: string, options?: unknown): never;
  /** NOT_SUPPORTED. */
  unmountBucket(path: string): never;
  /** NOT_SUPPORTED. */
  createBackup(options: unknown): never;
  /** NOT_SUPPORTED. */
  restoreBackup(backup: unknown): never;
}

/** A session of a shell: commands begin in the directory and with the variables that those before have left. */
export type ExecutionSession = { id: string } & { [K in keyof Commands]: Commands[K] };

// ---- a sandbox

export interface Sandbox extends RpcTarget, Commands {
  readonly id: string;
  info(): GuestInfo;
  /** Ends a command by the processId that its caller chose. False when there is none. */
  cancel(processId: string): boolean;
  interruptCode(contextId: string): void;

  createSession(options?: { id?: string; name?: string; env?: Record<string, string | null | undefined>; cwd?: string; commandTimeoutMs?: number }): ExecutionSession;
  getSession(id: string): ExecutionSession;
  deleteSession(id: string): { success: boolean; sessionId: string; timestamp: string };
  listSessions(): string[];

  exposePort(port: number, options?: { hostname?: string; name?: string; token?: string }): { url: string; port: number; name?: string };
  unexposePort(port: number): void;
  getExposedPorts(hostname?: string): { url: string; port: number; name?: string; status: "active" | "inactive" }[];
  isPortExposed(port: number): boolean;
  validatePortToken(port: number, token: string): boolean;

  /** The port is that of the URL, or of the header cf-container-target-port. */
  fetch(request: Request | string | URL, init?: FetchInit): Response;
  /** containerFetch(request, port) or containerFetch(url, init, port). */
  containerFetch(request: Request | string | URL, portOrInit: number | FetchInit, port?: number): Response;
  wsConnect(request: Request | string | URL, port: number): { protocol: string; readable: ReadableStream<string | Uint8Array>; writable: WritableStream<string | Uint8Array> };

  setKeepAlive(keepAlive: boolean): void;
  setSandboxName(name: string): void;
  /** NOT_SUPPORTED. */
  setSleepAfter(sleepAfter: string | number): never;
  /** NOT_SUPPORTED. */
  setContainerTimeouts(timeouts: unknown): never;
  /** Ends the sandbox with its files. PERMISSION_DENIED where it belongs to somebody else. */
  destroy(): void;

  readonly processes: Processes;
  readonly files: Files;
  readonly terminals: Terminals;
  readonly ports: Ports;
  readonly search: Search;
}

export interface FetchInit {
  method?: string;
  headers?: Record<string, string>;
  body?: string | Uint8Array | ReadableStream<Uint8Array>;
}

export interface TerminalSize {
  columns: number;
  rows: number;
}

export interface Exit {
  /** -1 when a signal has ended the process. */
  code: number;
  signal?: string;
  timedOut?: boolean;
  killed?: boolean;
  outOfMemory?: boolean;
}

export interface ProcessInfo {
  id: string;
  pid: number;
  argv: string[];
  dir: string;
  mode: "lossless" | "follow";
  terminal?: TerminalSize;
  labels?: Record<string, string>;
  started: string;
  running: boolean;
  ended?: string;
  exit?: Exit;
  logStart: number;
  logEnd: number;
  viewers?: number;
}

export interface StartOptions {
  id?: string;
  env?: Record<string, string>;
  unset?: string[];
  dir?: string;
  user?: "" | "root";
  stdin?: boolean;
  merge?: boolean;
  terminal?: TerminalSize;
  timeout?: number;
  mode?: "lossless" | "follow";
  logBytes?: number;
  labels?: Record<string, string>;
}

export interface LogChunk {
  stream?: Stream;
  data?: Uint8Array;
  /** Bytes that are missing before data. */
  dropped?: number;
  /** Of the first byte behind data: since, to go on from here. */
  offset: number;
  /** The process as it ended; in the last chunk. */
  info?: ProcessInfo;
}

export interface Processes extends RpcTarget {
  /** A program and its arguments. There is no shell unless it is named: ["bash", "-c", script]. */
  start(argv: string[], options?: StartOptions): ProcessInfo;
  exec(argv: string[], options?: StartOptions & { input?: string | Uint8Array; maxOutput?: number }): {
    id: string;
    exit: Exit;
    stdout: Uint8Array;
    stderr: Uint8Array;
    truncated: boolean;
    total: number;
    duration: number;
  };
  get(id: string): ProcessInfo;
  list(): ProcessInfo[];
  wait(id: string): ProcessInfo;
  waitLog(id: string, want: { text?: string; pattern?: string; stream?: 1 | 2; offset?: number; timeoutMs?: number }): { line: string; groups?: string[]; stream: 1 | 2; offset: number; end: number };
  waitPort(id: string, port: number, want: { path?: string; minStatus?: number; maxStatus?: number; timeoutMs?: number }): { address: string; status?: number };
  signal(id: string, signal: string | number): void;
  kill(id: string): void;
  remove(id: string): void;
  logs(id: string, options?: { since?: number; follow?: boolean }): ReadableStream<LogChunk>;
  stdin(id: string): WritableStream<Uint8Array | string>;
  resize(id: string, size: TerminalSize): void;
}

export interface FileInfo {
  path: string;
  name: string;
  type: FileType;
  size: number;
  mode: number;
  uid: number;
  gid: number;
  modified: string;
  target?: string;
  version: string;
}

export interface WriteOptions {
  parents?: boolean;
  append?: boolean;
  inPlace?: boolean;
  exclusive?: boolean;
  ifVersion?: string;
  mode?: number;
  sync?: boolean;
}

export interface FileEvent {
  type: "create" | "modify" | "delete" | "move_from" | "move_to" | "attrib" | "overflow" | "alive";
  path?: string;
  from?: string;
  cookie?: number;
  directory?: boolean;
  reason?: string;
}

export type ArchiveFormat = "tar" | "tar.gz" | "tar.zst";

export interface Files extends RpcTarget {
  read(path: string, options?: { offset?: number; length?: number }): { info: FileInfo; data: Uint8Array };
  readStream(path: string, options?: { offset?: number; length?: number }): ReadableStream<Uint8Array>;
  readLines(path: string, options?: { first?: number; count?: number; maxBytes?: number }): {
    info: FileInfo;
    first: number;
    count: number;
    text: Uint8Array;
    total: number;
    truncated?: boolean;
    lineCut?: boolean;
    binary?: boolean;
    mime: string;
  };
  write(path: string, content: string | Uint8Array | ReadableStream<Uint8Array>, options?: WriteOptions): FileInfo;
  /** The file is there when the stream has been closed; one that breaks changes nothing. */
  writeStream(path: string, options?: WriteOptions): WritableStream<Uint8Array | string>;
  edit(path: string, oldText: string, newText: string, options?: { all?: boolean; ifVersion?: string }): { info: FileInfo; replaced: number };
  applyPatch(patch: string, options?: { dir?: string; strip?: number }): { files: { path: string; kind: "add" | "update" | "delete" | "move"; from?: string }[] };
  stat(path: string): FileInfo;
  lstat(path: string): FileInfo;
  exists(path: string): boolean;
  list(path: string, options?: { recursive?: boolean; hidden?: boolean; limit?: number; cursor?: string }): { entries: FileInfo[]; next?: string };
  mkdir(path: string, options?: { parents?: boolean }): void;
  remove(path: string, options?: { recursive?: boolean }): void;
  rename(from: string, to: string): void;
  copy(from: string, to: string, options?: { overwrite?: boolean }): { files: number; directories: number; symlinks: number; skipped?: number; bytes: number };
  chmod(path: string, mode: number): void;
  symlink(target: string, path: string): void;
  /** alive is a sign of life, and no event. */
  watch(path: string, options?: { recursive?: boolean; include?: string[]; exclude?: string[] }): ReadableStream<FileEvent>;
  archive(path: string, options?: { format?: ArchiveFormat; maxBytes?: number }): ReadableStream<Uint8Array>;
  extract(path: string, archive: ReadableStream<Uint8Array>, options?: { format?: ArchiveFormat; strip?: number; maxBytes?: number }): { files: number; directories: number; links: number; bytes: number };
}

export interface Terminals extends RpcTarget {
  create(options?: TerminalOptions): ProcessInfo;
  get(id: string): ProcessInfo;
  list(): ProcessInfo[];
  /** From an offset on, until the program has ended. Several may read at a time. */
  output(id: string, options?: { since?: number }): ReadableStream<Uint8Array>;
  /** The newest takes over from those before. */
  input(id: string): WritableStream<Uint8Array | string>;
  resize(id: string, cols: number, rows: number): void;
  kill(id: string, signal?: string | number): void;
  wait(id: string): ProcessInfo;
}

export interface PortInfo {
  port: number;
  address: string;
  pid?: number;
  process?: string;
  listener?: string;
}

export interface Ports extends RpcTarget {
  /** With the URL that opens the port in a browser, where it has one already. */
  list(): (PortInfo & { url?: string })[];
  /** ready comes once, after what was open already; {type: "alive"} is a sign of life. */
  watch(): ReadableStream<(PortInfo & { kind: "open" | "close" | "ready" }) | { type: "alive" }>;
  /** A port, or the path of a unix socket. */
  dial(address: number | string): { readable: ReadableStream<Uint8Array>; writable: WritableStream<Uint8Array> };
}

export interface SearchScope {
  path?: string;
  include?: string[];
  exclude?: string[];
  hidden?: boolean;
  noIgnore?: boolean;
  timeout?: number;
  limit?: number;
}

export type SearchLimit = "matches" | "names" | "bytes" | "time";

export interface Search extends RpcTarget {
  glob(options?: SearchScope): { paths: string[]; truncated?: SearchLimit };
  /** The pattern is RE2's. */
  grep(pattern: string, options?: SearchScope & { fixed?: boolean; ignoreCase?: boolean; context?: number }): {
    matches: { path: string; line: number; text: string; start: number; end: number; before?: string[]; after?: string[] }[];
    truncated?: SearchLimit;
  };
  find(query: string, options?: SearchScope): { matches: { path: string; score: number }[]; truncated?: SearchLimit };
}
