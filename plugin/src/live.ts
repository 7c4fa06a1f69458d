import { Effect, Fiber } from "effect"
import type { ToolContext } from "@opencode-ai/plugin"
import type { ProgressUpdate } from "./wire"

/**
 * Gives the function that shows the state of a running tool to OpenCode's clients.
 *
 * In OpenCode 1.18 context.metadata() returns an Effect that nobody runs. It is
 * run here, with the services of the fiber that called execute(): so live() has
 * to be called in execute()'s first, synchronous part. A version whose
 * metadata() does the work itself returns something else, which is awaited.
 *
 * Updates never pile up: while one is on its way only the newest is kept.
 * A failed update is dropped, since it must not fail the tool.
 */
export function live(context: ToolContext): (update: ProgressUpdate) => Promise<void> {
  const fiber = Fiber.getCurrent()
  const run: (effect: Effect.Effect<unknown, unknown, any>) => Promise<unknown> = fiber
    ? Effect.runPromiseWith(fiber.context as never)
    : (Effect.runPromise as never)

  let newest: ProgressUpdate | undefined
  let pump: Promise<void> | undefined
  const drain = async () => {
    while (newest) {
      const update = newest
      newest = undefined
      try {
        const returned: unknown = context.metadata(update)
        await (Effect.isEffect(returned) ? run(returned) : returned)
      } catch {
        // The next update, or the result, shows the state.
      }
    }
    pump = undefined
  }
  return (update) => {
    newest = update
    return (pump ??= drain())
  }
}
