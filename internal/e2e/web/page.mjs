// The web page as a person uses it: page.mjs <url> <chromium> <folder for screenshots>
//
// It prints one line of JSON per step, {"name", "error"?}, and last {"refused": [...], "errors": [...]}.
import { chromium } from "playwright-core";
import { mkdirSync } from "node:fs";
import { join } from "node:path";

const [url, executablePath, shots] = process.argv.slice(2);
const patience = 90_000;
mkdirSync(shots, { recursive: true });

// A sandbox made by a test has no use for one inside the browser, which root cannot have.
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
const page = await browser.newPage({ viewport: { width: 1400, height: 900 } });
page.setDefaultTimeout(patience);
// What a person can choose in the page's settings: commands and edits are shown unfolded.
await page.addInitScript(() => {
  const key = "settings.v3";
  const settings = JSON.parse(localStorage.getItem(key) ?? "{}");
  settings.general = { ...settings.general, shellToolPartsExpanded: true, editToolPartsExpanded: true };
  localStorage.setItem(key, JSON.stringify(settings));
});

const refused = [];
const errors = [];
page.on("response", (r) => {
  if (r.status() >= 400) refused.push(`${r.status()} ${r.request().method()} ${new URL(r.url()).pathname}`);
});
page.on("pageerror", (e) => errors.push(e.message));
page.on("console", (m) => {
  if (m.type() === "error" && !m.text().startsWith("Failed to load resource")) errors.push(m.text());
});

let failed = false;
async function step(name, act) {
  if (failed) return;
  let error;
  try {
    await act();
  } catch (e) {
    failed = true;
    error = String(e?.message ?? e);
  }
  await page.screenshot({ path: join(shots, `${name.replaceAll(" ", "-")}.png`) }).catch(() => {});
  console.log(JSON.stringify({ name, error }));
}

function check(holds, what) {
  if (!holds) throw new Error(what);
}

const button = (name, options) => page.getByRole("button", { name, ...options });

// What the model is to do. The words that are waited for are made in the sandbox: no command has them.
const script = [
  {
    tool: "bash",
    args: {
      command:
        "mkdir -p src; echo mark-$(id -un)-$((40+2)) | tee /home/user/marker > src/inside.txt; " +
        "echo live-$((100+11)); until [ -e /home/user/go-on ]; do sleep 0.1; done; echo over-$((200+22))",
    },
  },
  { tool: "write", args: { filePath: "/home/user/project/hello.py", content: 'print("one")\nprint("two")\n' } },
  { tool: "edit", args: { filePath: "/home/user/project/hello.py", oldString: "two", newString: "three" } },
  { text: "All of it is done." },
];

await step("opened", async () => {
  await page.goto(url);
  await page.getByText("Add project").click();
  await page.getByText("project", { exact: true }).first().waitFor(); // the directory, in the list of those at home
});

await step("project", async () => {
  await page.keyboard.press("Enter");
  await button("Add project").waitFor();
  await page.getByText("Search sessions").or(page.getByPlaceholder("Search sessions")).first().waitFor();
  await page.goto(`${url}/${Buffer.from("/home/user/project").toString("base64url")}/session`);
  await button("Scripted").waitFor(); // the model
  await page.getByText("Ask anything").waitFor();
});

await step("prompt", async () => {
  await page.locator("[contenteditable=true]").first().click();
  await page.keyboard.insertText(JSON.stringify(script));
  await button("Send").click();
  await page.waitForURL(/\/session\/ses_/);
});

await step("live output", async () => {
  await page.getByText("live-111").first().waitFor();
  check((await page.getByText("over-222").count()) === 0, "the command is over, so its output was not live");
  await button("Stop").waitFor(); // the turn goes on
});

await step("terminal", async () => {
  await page.keyboard.press("Control+Backquote");
  const opened = await page.waitForEvent("websocket", { predicate: (w) => w.url().includes("/pty/") });
  let output = "";
  opened.on("framereceived", (f) => (output += typeof f.payload === "string" ? f.payload : ""));
  const shows = async (text) => {
    for (const end = Date.now() + patience; !output.includes(text); ) {
      check(Date.now() < end, `the terminal does not show ${text}, but ${JSON.stringify(output.slice(-500))}`);
      await opened.waitForEvent("framereceived", { timeout: 1000 }).catch(() => {});
    }
  };
  await page.locator("canvas").first().waitFor();
  await page.keyboard.type("cat /home/user/marker; pwd; touch /home/user/go-on\n", { delay: 5 });
  await shows("mark-user-42");
  await shows("/home/user/project");
});

await step("answer", async () => {
  await page.getByText("over-222").first().waitFor();
  await page.getByText("All of it is done.", { exact: true }).last().waitFor();
});

await step("diff of the edit", async () => {
  await page.getByText('print("three")').first().waitFor();
});

await step("review", async () => {
  await button("Toggle review").click();
  await page.getByText("inside.txt").first().waitFor();
});

await step("file tree", async () => {
  await page.keyboard.press("Control+Backquote"); // more room
  await button("Open file").click();
  await page.getByText("Select a file to open").waitFor();
  await page.getByText("src", { exact: true }).last().click();
  await page.getByText("inside.txt", { exact: true }).last().click();
  await page.getByText("mark-user-42").last().waitFor();
});

await step("home", async () => {
  await page.goto(url);
  await page.getByText("Scripted session").first().waitFor();
});

console.log(JSON.stringify({ refused: [...new Set(refused)], errors: [...new Set(errors)] }));
await browser.close();
