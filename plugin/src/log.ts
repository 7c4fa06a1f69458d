/** One line per fact on stderr, where the host reads it among OpenCode's own log. */
export function log(level: "INFO" | "WARN" | "ERROR", message: string, facts: Record<string, string | number> = {}): void {
  let line = `${level} service=tongs-plugin msg=${JSON.stringify(message)}`
  for (const [key, value] of Object.entries(facts))
    line += ` ${key}=${typeof value === "number" ? value : JSON.stringify(value)}`
  process.stderr.write(line + "\n")
}
