/** OpenCode tells the model about the machine OpenCode runs on. These lines tell it about the sandbox. */
export function correctEnvironment(system: string[], project: string): void {
  const facts: Record<string, string> = {
    "Working directory": project,
    "Workspace root folder": project,
    "Is directory a git repo": "yes",
    Platform: "linux",
  }
  for (let i = 0; i < system.length; i++) {
    system[i] = system[i]!.replace(/<env>[^]*?<\/env>/g, (block) =>
      block.replace(/^( *)([A-Z][A-Za-z ]*): .*$/gm, (line, indent: string, name: string) =>
        Object.hasOwn(facts, name) ? `${indent}${name}: ${facts[name]}` : line,
      ),
    )
  }
}

/**
 * The task tool reads each @path of its prompt from the disk of the machine
 * OpenCode runs on. Between backticks it does not, and the subagent reads the
 * path with its own tools, in the sandbox. A bare @name may be an agent's: it stays.
 */
export function quotePaths(text: string): string {
  return text.replace(/(?<![\w`])@(\.?[^\s`,.]*(?:\.[^\s`,.]+)*)/g, (mention, path: string) =>
    path === "" || /^[A-Za-z][\w-]*$/.test(path) ? mention : `\`${mention}\``,
  )
}
