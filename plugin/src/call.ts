import type { ToolContext, ToolResult } from "@opencode-ai/plugin"
import { Patience, type Hub } from "./hub"
import type { Link } from "./link"
import { live } from "./live"
import { log } from "./log"
import { rememberTruncated } from "./truncated"
import type { AskRequest, ToolOutput, WireError } from "./wire"

/** How long an aborted call waits for the sandbox to say that it has ended, in milliseconds. */
const abortGraceMs = 5_000

/** Bound on attempts of one call, should the connection break again and again. */
const maxAttempts = 50

/** Bound on a call's arguments as JSON, in bytes: a message may have 32 MiB. */
const maxArguments = 24 << 20

/** The host lost its connection to the sandbox: the run itself goes on there. */
const lostCodes = new Set(["CONNECTION_LOST"])

/** The operation that the host names when that happened during a call, and not while the sandbox was looked for. */
const calledOp = "call the sandbox"

/** OpenCode 1.18 gives the id of the call too, although its types do not say so. */
type Context = ToolContext & { callID?: string }

/**
 * Runs a tool in the sandbox of the context's session.
 *
 * A connection that breaks does not fail the call: it is asked again with the
 * same call id, which the sandbox answers from the same run. A sandbox that was
 * started anew knows of none: it is told that the call was made before, and
 * repeats only what changes nothing.
 */
export async function callTool(
  hub: Hub,
  waitMs: number,
  name: string,
  args: Record<string, unknown>,
  context: Context,
): Promise<ToolResult> {
  const progress = live(context) // First, see there.
  const callID = context.callID || crypto.randomUUID()
  const patience = new Patience(waitMs)
  const asked = permissions(context)
  if (context.abort.aborted) throw aborted()
  const size = Buffer.byteLength(JSON.stringify(args) ?? "")
  if (size > maxArguments)
    throw new Error(`The arguments of ${name} have ${size} bytes and may have ${maxArguments}. Do the work in smaller parts.`)

  let again = false // The call may have come to the sandbox.
  for (let attempt = 1; ; attempt++) {
    let link: Link
    try {
      link = await hub.link(patience, context.abort)
    } catch (error) {
      if (!context.abort.aborted) throw error
      if (attempt > 1) void cancelLater(hub, waitMs, context.sessionID, callID)
      throw aborted()
    }
    try {
      const done = await once(link, name, args, callID, again, context, asked.ask, progress)
      rememberTruncated(context.sessionID, callID, done.metadata)
      return done
    } catch (error) {
      if (asked.denied) throw asked.denied.reason
      if (error instanceof Aborted) {
        if (link.broken) void cancelLater(hub, waitMs, context.sessionID, callID)
        throw error
      }
      const lost = link.broken || lostCodes.has((error as WireError)?.code ?? "")
      if (!lost || attempt >= maxAttempts) throw readable(error)
      again ||= link.broken || (error as WireError).op === calledOp
      if (!link.broken) await pause(patience, context.abort)
      log("WARN", "the connection broke during a call, it is asked again", { tool: name, call: callID, attempt })
    }
  }
}

/** Asks once over one connection. Throws Aborted when OpenCode has aborted the call. */
async function once(
  link: Link,
  name: string,
  args: Record<string, unknown>,
  callID: string,
  again: boolean,
  context: Context,
  ask: (request: AskRequest) => Promise<void>,
  progress: ReturnType<typeof live>,
): Promise<Exclude<ToolResult, string>> {
  const { sessionID, messageID, agent, abort } = context
  const box = link.main.sandbox(sessionID)
  const pending = box.tool({ name, args, callID, sessionID, messageID, agent, again, ask, progress })
  const ended = Promise.withResolvers<never>()
  let timer: ReturnType<typeof setTimeout> | undefined
  const onAbort = () => {
    // On the same stub, so that it cannot overtake the call.
    const cancelled = box.cancel(callID)
    cancelled.then(
      () => cancelled[Symbol.dispose](),
      () => cancelled[Symbol.dispose](),
    )
    timer = setTimeout(() => ended.reject(aborted()), abortGraceMs)
  }
  abort.addEventListener("abort", onAbort, { once: true })
  if (abort.aborted) onAbort()
  try {
    const output = await Promise.race([pending, ended.promise])
    try {
      return result(output as ToolOutput)
    } finally {
      ;(output as Partial<Disposable>)[Symbol.dispose]?.()
    }
  } catch (error) {
    if (abort.aborted) throw aborted()
    throw error
  } finally {
    clearTimeout(timer)
    abort.removeEventListener("abort", onAbort)
    pending[Symbol.dispose]()
    box[Symbol.dispose]()
  }
}

/**
 * The permission requests of one call. The same request again, which happens
 * when a run is asked for again after a reconnect, gets the first one's answer.
 */
function permissions(context: Context) {
  const answers = new Map<string, Promise<void>>()
  const state = {
    /** Set when a person said no: OpenCode needs the very error that it threw. */
    denied: undefined as { reason: unknown } | undefined,
    ask(request: AskRequest): Promise<void> {
      const { permission, patterns, always, metadata } = request
      const key = JSON.stringify([permission, patterns, always])
      const known = answers.get(key)
      if (known) return known
      const answer = (async () => {
        try {
          await context.ask({ permission, patterns, always, metadata })
        } catch (reason) {
          state.denied = { reason }
          throw reason
        }
      })()
      answers.set(key, answer)
      return answer
    },
  }
  return state
}

/** Tells the sandbox to end a run whose connection is gone, as soon as there is another. */
async function cancelLater(hub: Hub, waitMs: number, sessionID: string, callID: string): Promise<void> {
  const patience = new Patience(waitMs)
  for (let attempt = 1; attempt <= maxAttempts; attempt++) {
    let link: Link
    try {
      link = await hub.link(patience)
    } catch {
      log("WARN", "an aborted call could not be cancelled in its sandbox", { call: callID })
      return
    }
    const box = link.main.sandbox(sessionID)
    try {
      await box.cancel(callID)
      return
    } catch (error) {
      if (!link.broken) {
        log("WARN", "an aborted call could not be cancelled in its sandbox", { call: callID, reason: String(error) })
        return
      }
    } finally {
      box[Symbol.dispose]()
    }
  }
}

/** A pause between attempts whose connection to the host holds. It counts as time without one. */
export async function pause(patience: Patience, signal?: AbortSignal): Promise<void> {
  if (patience.leftMs <= 0) return
  const ms = Math.min(500, patience.leftMs)
  patience.leftMs -= ms
  await new Promise<void>((resolve) => {
    const done = () => {
      clearTimeout(timer)
      signal?.removeEventListener("abort", done)
      resolve()
    }
    const timer = setTimeout(done, ms)
    signal?.addEventListener("abort", done, { once: true })
  })
}

function result(output: ToolOutput): Exclude<ToolResult, string> {
  if (typeof output !== "object" || output === null || typeof output.output !== "string")
    throw new Error("The sandbox's answer is not a tool result: its output is not a text")
  return {
    title: output.title ?? "",
    output: output.output,
    metadata: output.metadata ?? {},
    ...(output.attachments?.length ? { attachments: output.attachments } : {}),
  }
}

class Aborted extends Error {}

function aborted(): Error {
  return new Aborted("Tool execution aborted")
}

/** The message for the model, with the cure if the sandbox named one. */
function readable(error: unknown): unknown {
  const { message, hint } = error as WireError
  return hint && message && !message.includes(hint) ? new Error(`${message}\n${hint}`, { cause: error }) : error
}
