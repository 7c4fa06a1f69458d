import type { Link } from "./link"

/** Time that one call may spend without a connection. It is shared by all its attempts. */
export class Patience {
  readonly limitMs: number
  leftMs: number
  constructor(limitMs: number) {
    this.limitMs = limitMs
    this.leftMs = limitMs
  }
}

/** Thrown when a call was not carried out because no host came within its patience. */
export class HostUnavailable extends Error {
  constructor(limitMs: number, lastProblem: string | undefined) {
    super(
      `No sandbox host has been connected for ${limitMs / 1000} s, so the call was not carried out to its end` +
        (lastProblem ? ` (${lastProblem})` : "") +
        `. Its sandbox and files are kept. Check that "tongs up" is running, then try again.`,
    )
    this.name = "HostUnavailable"
  }
}

/** Holds the newest connection of a host, and those who wait for one. */
export class Hub {
  /** Why there is no listener, if there is none. Told to those who wait in vain. */
  problem: string | undefined
  #link: Link | undefined
  #waiting = new Set<() => void>()

  /** Makes link the one that is used. An older one is closed. */
  attach(link: Link): void {
    const old = this.#link
    this.#link = link
    old?.close(4001, "a newer connection of the host has taken over")
    for (const wake of [...this.#waiting]) wake()
  }

  /** Forgets link, if it is the one that is used. */
  detach(link: Link): void {
    if (this.#link === link) this.#link = undefined
  }

  /**
   * Gives the connection, waiting for one if there is none.
   * Throws HostUnavailable when patience has run out, or signal's reason.
   */
  async link(patience: Patience, signal?: AbortSignal): Promise<Link> {
    for (;;) {
      signal?.throwIfAborted()
      const link = this.#link
      if (link && !link.broken) return link
      if (patience.leftMs <= 0) throw new HostUnavailable(patience.limitMs, this.problem)
      await this.#wait(patience, signal)
    }
  }

  #wait(patience: Patience, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const began = performance.now()
      const done = () => {
        clearTimeout(timer)
        signal?.removeEventListener("abort", done)
        this.#waiting.delete(done)
        patience.leftMs -= performance.now() - began
        resolve()
      }
      const timer = setTimeout(() => {
        patience.leftMs = 0
        done()
      }, patience.leftMs)
      signal?.addEventListener("abort", done, { once: true })
      this.#waiting.add(done)
    })
  }
}
