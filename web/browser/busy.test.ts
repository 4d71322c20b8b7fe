import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { expect, test } from "vitest";
import { lab, status, uiLink } from "./lab";
import { useScreen } from "./screen";

/** For `cargo xtask bench ui`: what the page costs while it shows a party of sixteen. */
const MEMBERS = 16;
const SECONDS = 20;
/** Clock ticks in a second, as `/proc` counts them. */
const HERTZ = 100;

const screen = useScreen();

test("sixteen members", async () => {
  const { page } = screen;
  await page.goto(await uiLink("p1"));
  const others = page.getByRole("region", { name: "Members" }).locator("li.panel:not([data-path='none'])");
  await expect.poll(() => others.count(), { timeout: 50_000 }).toBe(MEMBERS - 1);
  await page.getByRole("region", { name: "Who should host" }).waitFor();
  await page.waitForTimeout(3000);

  const devtools = await page.context().newCDPSession(page);
  await devtools.send("Performance.enable");
  const measures = async () => {
    const { metrics } = await devtools.send("Performance.getMetrics");
    return Object.fromEntries(metrics.map(({ name, value }) => [name, value]));
  };
  const updates = page.evaluate(async (seconds) => {
    let count = 0;
    const observer = new MutationObserver(() => (count += 1));
    observer.observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true });
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    observer.disconnect();
    return count;
  }, SECONDS);
  const [before, ticks] = [await measures(), processorTicks()];
  const started = performance.now();
  const changed = await updates;
  const wall = (performance.now() - started) / 1000;
  const [after, later] = [await measures(), processorTicks()];
  await screen.look("sixteen");
  await page.goto("about:blank");
  const alone = await daemonAlone();

  const share = (name: string) => percent(((after[name] ?? 0) - (before[name] ?? 0)) / wall);
  const figures = {
    members: MEMBERS,
    seconds: SECONDS,
    updates_per_s: Number((changed / SECONDS).toFixed(2)),
    bytes_of_an_update: JSON.stringify(await status("p1")).length,
    daemon_percent_of_a_core: percent((later.daemon - ticks.daemon) / HERTZ / wall),
    daemon_percent_without_page: alone,
    page_percent_of_a_core: share("TaskDuration"),
    script_percent: share("ScriptDuration"),
    layout_percent: share("LayoutDuration"),
    style_percent: share("RecalcStyleDuration"),
    renderer_percent: percent((later.renderer - ticks.renderer) / HERTZ / wall),
    chromium_percent: percent((later.all - ticks.all) / HERTZ / wall),
  };
  writeFileSync(join(lab.orders, "figures.json"), JSON.stringify(figures));
  expect(changed).toBeGreaterThan(0);
}, 180_000);

/** The daemon's share while nobody looks. */
async function daemonAlone(): Promise<number> {
  await screen.page.waitForTimeout(2000);
  const [before, started] = [processorTicks().daemon, performance.now()];
  await screen.page.waitForTimeout(SECONDS * 1000);
  return percent((processorTicks().daemon - before) / HERTZ / ((performance.now() - started) / 1000));
}

const percent = (share: number) => Number((share * 100).toFixed(1));

/** Processor time so far: of this machine's daemon, of Chromium's renderers, and of all its processes. */
function processorTicks(): { daemon: number; renderer: number; all: number } {
  const processes = readdirSync("/proc").filter((name) => /^\d+$/.test(name)).flatMap(look);
  const ours = new Set(processes.filter(({ command }) => command.includes("lanrage-ui-") && !command.includes("--type=")).map(({ pid }) => pid));
  for (let grown = true; grown; ) {
    const children = processes.filter(({ pid, parent }) => ours.has(parent) && !ours.has(pid));
    children.forEach(({ pid }) => ours.add(pid));
    grown = children.length > 0;
  }
  const config = join(dirname(lab.sockets.p1 ?? ""), "lanrage.toml");
  const sum = (wanted: (process: { pid: string; command: string }) => boolean) =>
    processes.reduce((total, process) => total + (wanted(process) ? process.ticks : 0), 0);
  return {
    daemon: sum(({ command }) => command.includes(config)),
    renderer: sum(({ pid, command }) => ours.has(pid) && command.includes("--type=renderer")),
    all: sum(({ pid }) => ours.has(pid)),
  };
}

function look(pid: string): { pid: string; parent: string; command: string; ticks: number }[] {
  try {
    const command = readFileSync(`/proc/${pid}/cmdline`, "utf8");
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8").replace(/^.*\) /s, "").split(" ");
    return [{ pid, command, parent: fields[1] ?? "", ticks: Number(fields[11]) + Number(fields[12]) }];
  } catch {
    return []; // it has ended
  }
}
