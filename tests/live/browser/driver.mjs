// One page of a real browser, driven by JSON lines: { id, do, ... } on standard input, { id, value | error } on standard
// output. Usage: node driver.mjs FOLDER-OF-PLAYWRIGHT-CORE BROWSER
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [folder, executablePath] = process.argv.slice(2);
const { chromium } = createRequire(`${folder}/`)("playwright-core");
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
let context, page, told;

const run = ({ code, argument }) =>
  page.evaluate(([body, value]) => new Function("value", `return (async () => {${body}})()`)(value), [code, argument ?? null]);

const acts = {
  async open({ url, width, height, scale, touch }) {
    await context?.close();
    context = await browser.newContext({ viewport: { width, height }, deviceScaleFactor: scale, hasTouch: touch });
    page = await context.newPage();
    told = [];
    page.on("pageerror", (error) => told.push(`uncaught: ${error.message}`));
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) told.push(`${message.type()}: ${message.text()} (${message.location().url})`);
    });
    await page.goto(url);
  },
  run,
  async wait({ code, argument, seconds }) {
    const end = Date.now() + seconds * 1000;
    for (;;) {
      const value = await run({ code, argument });
      if (value) return value;
      if (Date.now() > end) throw new Error(`not within ${seconds} s: ${code}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  },
  // Each step is a method of playwright's mouse, keyboard or touchscreen with its arguments: ["mouse", "move", 3, 4].
  async input({ steps }) {
    for (const [device, method, ...rest] of steps) await page[device][method](...rest);
  },
  // One finger along the points [x, y].
  async touch({ points }) {
    const cdp = await context.newCDPSession(page);
    const at = ([x, y]) => [{ x, y }];
    const [first, ...rest] = points;
    await cdp.send("Input.dispatchTouchEvent", { type: "touchStart", touchPoints: at(first) });
    for (const point of rest) await cdp.send("Input.dispatchTouchEvent", { type: "touchMove", touchPoints: at(point) });
    await cdp.send("Input.dispatchTouchEvent", { type: "touchEnd", touchPoints: [] });
    await cdp.detach();
  },
  screenshot: ({ path, clip }) => page.screenshot({ path, clip: clip ?? undefined }).then(() => path),
  told: async () => told,
  close: () => browser.close(),
};

for await (const line of createInterface({ input: process.stdin })) {
  const { id, do: act, ...rest } = JSON.parse(line);
  const reply = await acts[act](rest).then((value) => ({ value: value ?? null }), (error) => ({ error: error.message }));
  process.stdout.write(`${JSON.stringify({ id, ...reply })}\n`);
  if (act === "close") process.exit(0);
}
await browser.close();
