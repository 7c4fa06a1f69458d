/** What the host tells the plugin through the environment of `opencode serve`. */
export interface Settings {
  /** Loopback port of the Cap'n Web server. */
  port: number
  /** File that holds the token a host must present. Read anew at every connection. */
  tokenFile: string
  /** The project's directory in every sandbox, as the model has to see it. */
  project: string
  /** How long one call may be without a connection to the host, in milliseconds, before it fails. */
  waitMs: number
}

/** The plugin's version, reported by hello(). */
export const version = "0.1.0"

export function settings(env: Record<string, string | undefined> = process.env): Settings {
  return {
    port: integer(env, "TONGS_BRIDGE_PORT", 3001, 1, 65535),
    tokenFile: env.TONGS_BRIDGE_TOKEN_FILE || "/opt/tongs/bridge.token",
    project: env.TONGS_PROJECT || "/home/user/project",
    waitMs: integer(env, "TONGS_BRIDGE_WAIT_MS", 60_000, 1, 600_000),
  }
}

function integer(env: Record<string, string | undefined>, name: string, fallback: number, min: number, max: number): number {
  const text = env[name]
  if (!text) return fallback
  const value = Number(text)
  if (!Number.isInteger(value) || value < min || value > max)
    throw new Error(`${name} is ${JSON.stringify(text)}: it must be a whole number from ${min} to ${max}`)
  return value
}
