// Bundles src/index.ts and everything it needs into one file, dist/tongs.js,
// with the licences of what is in it at its end.
//
// The output depends only on package-lock.json, tools.json and src/: the same
// commit gives the same bytes anywhere. TestBundle holds it.
import { build } from "esbuild"
import { readdir, readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"

/** Where the bundles go: the first argument, or this directory. */
const root = process.argv[2] ?? "."

await bundle("src/index.ts", join(root, "dist/tongs.js"))
// A plugin of another making, for a test of the host.
await bundle("testdata/seed/seed.ts", join(root, "testdata/seed/seed.js"))

async function bundle(entry, outfile) {
  const { metafile } = await build({
    entryPoints: [entry],
    outfile,
    bundle: true,
    format: "esm",
    platform: "node",
    target: "esnext",
    conditions: ["bun"],
    minifySyntax: true,
    minifyWhitespace: true,
    charset: "ascii",
    legalComments: "none",
    logLevel: "warning",
    metafile: true,
    banner: { js: `// Code generated from plugin/${entry} by plugin/build.mjs. DO NOT EDIT.` },
  })

  const packages = new Set()
  for (const { inputs } of Object.values(metafile.outputs))
    for (const [path, { bytesInOutput }] of Object.entries(inputs)) {
      const found = path.match(/^node_modules\/((?:@[^/]+\/)?[^/]+)\//)
      if (found && bytesInOutput > 0) packages.add(found[1])
    }

  let notices = ""
  for (const name of [...packages].sort()) {
    const directory = `node_modules/${name}`
    const { version, license } = JSON.parse(await readFile(`${directory}/package.json`, "utf8"))
    const file = (await readdir(directory)).sort().find((entry) => /^licen[cs]e/i.test(entry))
    const text = file ? await readFile(`${directory}/${file}`, "utf8") : `License: ${license}\n`
    notices += `\n${name} ${version}\n\n${text.trim()}\n`
  }
  const comment = `/*\nThis file contains the following packages.\n${notices.replaceAll("*/", "* /")}*/\n`
  await writeFile(outfile, (await readFile(outfile, "utf8")) + comment)
}
