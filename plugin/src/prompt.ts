/** What the model is told about a sandbox. */
export interface Facts {
  directory: string
  worktree: string
  git: boolean
  platform: string
  instructions: string
}

/** OpenCode's description of the machine it runs on. Only prompts with one need Facts. */
const environment = /<env>[^]*?<\/env>/g

/** Tells whether a system prompt describes a machine. */
export function describesMachine(system: string[]): boolean {
  return system.some((text) => text.search(environment) >= 0)
}

/**
 * OpenCode tells the model about the machine OpenCode runs on. This tells it
 * about the sandbox instead, and adds the sandbox's instructions where OpenCode
 * puts those it finds.
 */
export function describeSandbox(system: string[], facts: Facts): void {
  const lines: Record<string, string> = {
    "Working directory": facts.directory,
    "Workspace root folder": facts.worktree,
    "Is directory a git repo": facts.git ? "yes" : "no",
    Platform: facts.platform,
  }
  let told = facts.instructions === ""
  for (let i = 0; i < system.length; i++) {
    system[i] = system[i]!.replace(environment, (block) => {
      const corrected = block.replace(/^( *)([A-Z][A-Za-z ]*): .*$/gm, (line, indent: string, name: string) =>
        Object.hasOwn(lines, name) ? `${indent}${name}: ${lines[name]}` : line,
      )
      if (told) return corrected
      told = true
      return `${corrected}\n${facts.instructions}`
    })
  }
}

/**
 * The task tool reads each @path of its prompt from the disk of the machine
 * OpenCode runs on. Between backticks it does not, and the subagent reads the
 * path with its own tools, in the sandbox. A bare @name may be an agent's: it
 * stays, unless there is something of that name there.
 */
export function quotePaths(text: string, isThere: (name: string) => boolean): string {
  return text.replace(/(?<![\w`])@(\.?[^\s`,.]*(?:\.[^\s`,.]+)*)/g, (mention, path: string) =>
    path === "" || (/^[A-Za-z][\w-]*$/.test(path) && !isThere(path)) ? mention : `\`${mention}\``,
  )
}
