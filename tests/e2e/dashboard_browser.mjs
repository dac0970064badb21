// The dashboard in a real browser, with a real broker. Usage:
//   node tests/e2e/dashboard_browser.mjs PROGRAM NATS_SERVER MODULES SCREENSHOTS
// MODULES is a directory with node_modules of playwright-core, axe-core and nats; the browser is
// UNIFIED_NATS_CHROMIUM or /usr/bin/chromium. The last line is `N passed, N failed`.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

const [program, natsServer, modules, screenshots] = process.argv.slice(2).map((path) => resolve(path));
const require = createRequire(join(modules, "node_modules", "here.js"));
const { chromium } = require("playwright-core");
const { connect } = require("nats");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const PATIENCE_MS = 60000;
const FAMILIES = ["orderbook", "trade", "funding_rate", "open_interest", "lsr_top_position", "lsr_all_account",
  "volatility_index", "liquidation"];

// Below the ports of outgoing connections, so that nobody takes one while a broker is restarted.
async function freePorts(count) {
  const servers = [];
  while (servers.length < count) {
    const server = createServer().listen(10000 + Math.floor(Math.random() * 20000), "127.0.0.1");
    const outcome = await Promise.race([once(server, "listening"), once(server, "error")].map((event) =>
      event.then((values) => values[0], (error) => error)));
    if (outcome === undefined) servers.push(server);
  }
  const ports = servers.map((server) => server.address().port);
  servers.forEach((server) => server.close());
  return ports;
}

async function until(what, found) {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    const value = await Promise.resolve().then(found).catch(() => null);
    if (value) return value;
    if (Date.now() > end) throw new Error(`never came: ${what}`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

class Broker {
  static async make(settings = {}) {
    const broker = new Broker();
    const [nats, http, api] = await freePorts(3);
    broker.directory = mkdtempSync(join(tmpdir(), "dashboard-"));
    broker.url = `http://127.0.0.1:${api}/`;
    broker.nats = `127.0.0.1:${nats}`;
    broker.environment = {
      PATH: process.env.PATH, NATS_SERVER_BIN: natsServer, JETSTREAM_STORE_DIR: join(broker.directory, "store"),
      NATS_CONFIG_FILE: join(broker.directory, "nats.conf"), NATS_HOST: "127.0.0.1", API_HOST: "127.0.0.1",
      NATS_PORT: `${nats}`, NATS_HTTP_PORT: `${http}`, API_PORT: `${api}`, ...settings,
    };
    await broker.start();
    return broker;
  }

  async start() {
    const log = openSync(join(screenshots, "broker.log"), "a");
    this.child = spawn(program, ["run"], { env: this.environment, stdio: ["ignore", log, log] });
    await until("the broker is ready", async () => (await fetch(`${this.url}readyz`)).ok);
  }

  async serverPid() {
    return (await (await fetch(`${this.url}api/v1/nats/info`)).json()).pid;
  }

  async stop() {
    this.child.kill("SIGTERM");
    await once(this.child, "exit");
  }

  async end() {
    if (this.child.exitCode === null) await this.stop();
    rmSync(this.directory, { recursive: true, force: true });
  }
}

// A page whose errors are kept; `expected` says which are none.
async function open(browser, options, url, expected = () => false) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.problems = [];
  const keep = (text) => expected(text) || page.problems.push(text);
  page.on("console", (message) => message.type() === "error" && keep(message.text()));
  page.on("pageerror", (error) => keep(`${error}`));
  page.on("request", (request) => request.url().startsWith(url) || page.problems.push(`asks ${request.url()}`));
  await page.goto(url);
  return page;
}

const tone = (page) => page.evaluate(() => document.documentElement.dataset.tone);
const text = (page, selector) => page.locator(selector).innerText();
const isLive = (page) => until("it is live", async () => (await text(page, "#connection")) === "Live");

function same(found, wanted, what) {
  if (JSON.stringify(found) !== JSON.stringify(wanted)) {
    throw new Error(`${what}: ${JSON.stringify(found)} instead of ${JSON.stringify(wanted)}`);
  }
}

const tests = {
  async "says everything without a script"({ browser, broker }) {
    const page = await open(browser, { javaScriptEnabled: false }, broker.url);
    same((await text(page, "#headline")).includes("The broker is well"), true, "the verdict");
    same(await page.locator("#families tbody th").allInnerTexts(), FAMILIES, "the families");
    same((await text(page, "#streams")).includes("MARKET_DATA"), true, "the stream");
    same(/^As of \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC$/.test(await text(page, "#connection")), true, "when it was so");
    await page.context().close();
  },

  async "leaves connections to the tabs that are seen"({ browser, broker }) {
    const context = await browser.newContext();
    const unseen = () => {
      globalThis.isSeen = false;
      Object.defineProperty(document, "visibilityState", { get: () => (globalThis.isSeen ? "visible" : "hidden") });
    };
    const tabs = [];
    // A browser has six connections for them all.
    for (let at = 0; at < 12; at += 1) {
      const tab = await context.newPage();
      await tab.addInitScript(unseen);
      await tab.goto(broker.url);
      await until(`tab ${at} has a title`, async () => (await tab.title()).startsWith("✓"));
      await isLive(tab);
      tabs.push(tab);
    }
    const seen = (tab, isSeen) => tab.evaluate((value) => {
      globalThis.isSeen = value;
      document.dispatchEvent(new Event("visibilitychange"));
    }, isSeen);
    const client = await connect({ servers: broker.nats });
    try {
      // Whoever is seen follows, one after the other.
      for (const [at, tab] of tabs.entries()) {
        await seen(tab, true);
        const subject = FAMILIES[at % 2 === 0 ? 1 : 0];
        const row = `#families tr[data-family="${subject}"]`;
        const before = await text(tab, row);
        await until(`tab ${at} follows`, async () => {
          client.publish(`${subject}-data.binance.spot.BTCUSDT`, "{}");
          return (await text(tab, row)) !== before;
        });
        await seen(tab, false);
      }
    } finally {
      await client.close();
      await context.close();
    }
  },

  async "shows what others have named as they have"({ browser, broker }) {
    const names = ["<b\"'&quot;", "L".repeat(200), "עברית\u202eEDCBA", "esc\u001b[31m"];
    const client = await connect({ servers: broker.nats });
    const ask = async (subject, body) => JSON.parse(new TextDecoder().decode(
      (await client.request(subject, JSON.stringify(body), { timeout: PATIENCE_MS })).data));
    const made = [];
    try {
      for (const [at, name] of names.entries()) {
        const config = { name, subjects: [`named-${at}.>`], description: "<img src=x onerror=alert(1)>", max_msgs: 1 };
        const answer = await ask(`$JS.API.STREAM.CREATE.${name}`, config);
        if (answer.error) throw new Error(JSON.stringify(answer.error));
        made.push(name);
      }
      for (const width of [1440, 390]) {
        const page = await open(browser, { viewport: { width, height: 900 } }, broker.url);
        await isLive(page);
        const shown = async () => page.locator("#streams tbody th").allTextContents();
        const found = await until("they are shown", async () => {
          const all = await shown();
          return names.every((name) => all.includes(name)) && all;
        });
        same(found.length, names.length + 1, "streams");
        const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
        same(overflow <= 0, true, `it is ${overflow} px too wide`);
        same(await page.locator("#data img, #data script, #data b").count(), 0, "elements of others");
        same(page.problems, [], "errors");
        await page.screenshot({ path: join(screenshots, `named-${width}.png`), fullPage: true });
        await page.context().close();
      }
    } finally {
      for (const name of made) {
        const answer = await ask(`$JS.API.STREAM.DELETE.${name}`, {});
        if (answer.error) console.log(`cannot delete ${name}: ${JSON.stringify(answer.error)}`);
      }
      await client.close();
    }
  },

  async "moves while somebody publishes"({ browser, broker }) {
    const page = await open(browser, {}, broker.url);
    await isLive(page);
    const client = await connect({ servers: broker.nats });
    let goes = true;
    const publishing = (async () => {
      while (goes) {
        client.publish("trade-data.binance.spot.BTCUSDT", "{}");
        client.publish("orderbook-data.binance.spot.BTCUSDT", "{}");
        await new Promise((done) => setTimeout(done, 20));
      }
    })();
    try {
      const row = '#families tr[data-family="trade"]';
      await until("trades move", async () => /moving/.test(await text(page, row)));
      await until("trades have a rate", async () => /[1-9]/.test(await text(page, `${row} .rate`)));
      const messages = await text(page, row);
      await until("it goes on", async () => (await text(page, row)) !== messages);
      same(/moving/.test(await text(page, '#families tr[data-family="liquidation"]')), false, "what is quiet");
      same((await text(page, "#headline")).includes("liquidation"), true, "the headline names who is quiet");
      await until("charts are drawn", () => page.locator("#charts canvas").count());
    } finally {
      goes = false;
      await publishing;
      await client.close();
    }
    same(page.problems, [], "errors");
    await page.context().close();
  },

  async "turns red with the server, and green again by itself"({ browser, broker }) {
    const page = await open(browser, {}, broker.url);
    await isLive(page);
    await until("it is green", async () => (await tone(page)) === "good");
    const pid = await broker.serverPid();
    process.kill(pid, "SIGSTOP");
    try {
      await until("it is red", async () => (await tone(page)) === "bad");
    } finally {
      process.kill(pid, "SIGCONT");
    }
    await until("it is green again", async () => (await tone(page)) === "good");
    process.kill(await broker.serverPid(), "SIGKILL");
    await until("the restart is shown", async () => /Restarts\s+[1-9]/.test(await text(page, "#facts")));
    await until("it is green once more", async () => (await tone(page)) === "good");
    same(page.problems, [], "errors");
    await page.context().close();
  },

  async "outlives the supervisor"({ browser, broker }) {
    const page = await open(browser, {}, broker.url, (words) => /Failed to load resource|ERR_/.test(words));
    await isLive(page);
    await broker.stop();
    await until("it says so", async () => (await text(page, "#connection")).includes("No connection"));
    same(await tone(page), "bad", "the tone");
    await broker.start();
    await isLive(page);
    await until("it is green again", async () => (await tone(page)) === "good");
    same(page.problems, [], "errors");
    await page.context().close();
  },

  async "asks for the token, and keeps it for the tab"({ browser, locked }) {
    const page = await open(browser, {}, locked.url, (words) => words.includes("401"));
    await until("it asks", () => page.locator("#login").isVisible());
    same(await page.locator("#data").isVisible(), false, "data");
    same((await page.content()).includes("MARKET_DATA"), false, "data in the page");
    await page.fill("#login-secret", "wrong");
    await page.keyboard.press("Enter");
    await until("it says no", async () => (await text(page, "#login-why")).includes("not let in"));
    await page.fill("#login-secret", "secret-of-the-test");
    await page.keyboard.press("Enter");
    await isLive(page);
    same((await text(page, "#streams")).includes("MARKET_DATA"), true, "the stream");
    await page.reload();
    await isLive(page);
    same(await page.locator("#login").isVisible(), false, "the question");
    same(page.problems, [], "errors");
    await page.context().close();
  },

  async "can be used with the keyboard alone"({ browser, broker }) {
    const page = await open(browser, {}, broker.url);
    await isLive(page);
    const reached = [];
    for (let step = 0; step < 10; step += 1) {
      await page.keyboard.press("Tab");
      reached.push(await page.evaluate(() => document.activeElement.id || document.activeElement.getAttribute("href")));
    }
    same([reached[0], reached.includes("families"), reached.includes("events")], ["#main", true, true], `${reached}`);
    await page.context().close();
  },
};

for (const colorScheme of ["light", "dark"]) {
  for (const width of [1440, 390]) {
    tests[`is accessible and fits: ${width} px, ${colorScheme}`] = async ({ browser, broker, locked }) => {
      const options = { colorScheme, viewport: { width, height: 900 } };
      for (const [name, url] of [["data", broker.url], ["locked", locked.url]]) {
        const page = await open(browser, options, url);
        if (name === "data") await isLive(page);
        else await until("it asks", () => page.locator("#login").isVisible());
        await page.evaluate(axe);
        const { violations } = await page.evaluate(() => window.axe.run(document));
        const serious = violations.filter(({ impact }) => ["serious", "critical"].includes(impact));
        same(serious.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).slice(0, 3)}`), [], "findings of axe");
        const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
        same(overflow <= 0, true, `it is ${overflow} px too wide`);
        await page.screenshot({ path: join(screenshots, `${name}-${width}-${colorScheme}.png`), fullPage: true });
        same(page.problems, [], "errors");
        await page.context().close();
      }
    };
  }
}

mkdirSync(screenshots, { recursive: true });
const browser = await chromium.launch({
  executablePath: process.env.UNIFIED_NATS_CHROMIUM || "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
});
const brokers = [];
let [passed, failed] = [0, 0];
try {
  const broker = await Broker.make();
  brokers.push(broker);
  const locked = await Broker.make({ API_TOKEN: "secret-of-the-test" });
  brokers.push(locked);
  for (const [name, test] of Object.entries(tests)) {
    try {
      await test({ browser, broker, locked });
      passed += 1;
      console.log(`PASS ${name}`);
    } catch (error) {
      failed += 1;
      console.log(`FAIL ${name}: ${error.stack}`);
    }
  }
} finally {
  await browser.close();
  await Promise.all(brokers.map((broker) => broker.end()));
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed > 0 ? 1 : 0;
