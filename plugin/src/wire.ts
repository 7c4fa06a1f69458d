/** The interfaces that cross the Cap'n Web connection between the plugin and the host. */

/** A permission request, in OpenCode's own shape. */
export interface AskRequest {
  permission: string
  patterns: string[]
  always: string[]
  metadata: Record<string, unknown>
}

/** What a running tool shows while it runs. */
export interface ProgressUpdate {
  title?: string
  metadata?: Record<string, unknown>
}

/** One run of a tool. The same callID again is the same run, not a second one. */
export interface ToolCall {
  name: string
  args: Record<string, unknown>
  callID: string
  sessionID: string
  messageID?: string
  agent?: string
  /** The call may have reached the sandbox before: its run is wanted, or nothing that changes anything. */
  again?: boolean
  ask?: (request: AskRequest) => Promise<void>
  progress?: (update: ProgressUpdate) => Promise<void>
}

export interface ToolAttachment {
  type: "file"
  mime: string
  url: string
  filename?: string
}

export interface ToolOutput {
  title?: string
  output: string
  metadata?: Record<string, unknown>
  attachments?: ToolAttachment[]
}

/** What the system prompt says about the project in a sandbox. */
export interface Project {
  directory: string
  worktree: string
  git: boolean
  platform: string
  /** The files of instructions, as they stand in the prompt. Absent if there are none, or the version is known. */
  instructions?: string
  version: string
}

/** What a sandbox offers to OpenCode. */
export interface Agent {
  project(knownVersion?: string): Promise<Project>
  tool(call: ToolCall): Promise<ToolOutput>
  cancel(callID: string): Promise<boolean>
}

/** The host's main object. */
export interface Host {
  sandbox(sessionID: string): Agent
}

/** An error that came over the wire may carry these. */
export interface WireError extends Error {
  code?: string
  op?: string
  hint?: string
}
