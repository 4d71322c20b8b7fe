import { expect, test } from "vitest";
import { invite, join, leave, order, reaches, revoke, status, uiLink } from "./lab";
import { PATIENCE, useScreen } from "./screen";

const screen = useScreen();

/** From the invite link in hand to a packet that comes back from the host; what is clicked is counted. */
async function joinByPage(link: string): Promise<number> {
  const { page } = screen;
  const clicked = await page.evaluate(() => {
    const counter = { clicks: 0 };
    addEventListener("click", (event) => event.isTrusted && (counter.clicks += 1), true);
    return ((window as unknown as { counter: typeof counter }).counter = counter).clicks;
  });
  expect(clicked).toBe(0);
  await page.getByRole("textbox", { name: "Invite link" }).fill(link);
  await page.getByRole("button", { name: "Join" }).click();
  await screen.heading("Friday night");
  await expect.poll(() => reaches("p3", "10.66.0.1"), PATIENCE).toBe(true);
  return page.evaluate(() => (window as unknown as { counter: { clicks: number } }).counter.clicks);
}

test("a link that is damaged, or was taken back, is explained where it was pasted", async () => {
  const { page } = screen;
  await page.goto(await uiLink("p3"));
  const link = page.getByRole("textbox", { name: "Invite link" });
  for (const [text, words] of [
    ["https://play.example/welcome", "This is not an invite link"],
    ["http://192.0.2.2:8667/j/AAAAAAAAAAAAAAAAAAAAAA", "The link has lost its part after #"],
    [await takenBack(), "taken back"],
  ] as const) {
    await link.fill(text);
    await page.getByRole("button", { name: "Join" }).click();
    await page.getByRole("alert").getByText(words).waitFor();
  }
  await screen.look("bad-link");
});

/** A link that lets nobody in any more. */
async function takenBack(): Promise<string> {
  const link = await invite("p1");
  await revoke("p1", link);
  return link;
}

test("a machine that never had LANrage plays after two clicks", async () => {
  const link = await invite("p1");
  await order("kill", "p3");
  await order("forget", "p3");
  await screen.page.goto("about:blank");
  const started = performance.now();
  await order("start", "p3");
  // The first click: the link that LANrage prints.
  await screen.page.goto(await uiLink("p3"));
  const clicks = 1 + (await joinByPage(link));
  console.log(`from starting LANrage for the first time to playing: ${seconds(started)}, ${clicks} clicks`);
  expect(clicks).toBeLessThanOrEqual(3);
  const paint = await screen.page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime);
  expect(paint).toBeGreaterThan(0);
  console.log(`first paint: ${Math.round(paint ?? 0)} ms`);
});

test("where LANrage runs, pasting the link is one click from playing", async () => {
  const link = await invite("p1");
  await leave("p3");
  await screen.heading("No party yet");
  const started = performance.now();
  const clicks = await joinByPage(link);
  console.log(`from pasting the link to playing: ${seconds(started)}, ${clicks} clicks`);
  expect(clicks).toBe(1);
  await leave("p3");
  // who comes back by the command line is shown by the page that is open
  await join("p3", link);
  await screen.heading("Friday night");
});

test("with three, the page says who should host, and how everybody reaches everybody", async () => {
  const { page } = screen;
  const panel = page.getByRole("region", { name: "Who should host" });
  await panel.waitFor();
  const isAdvised = async () => (await panel.textContent())?.includes((await status("p3")).party?.matrix?.advice ?? "?");
  await expect.poll(isAdvised, PATIENCE).toBe(true);
  await panel.getByRole("link", { name: "How everybody reaches everybody" }).click();
  await screen.heading("Game servers");
  const hosts = page.getByRole("region", { name: "Who should host" }).getByRole("row");
  await expect.poll(() => hosts.count(), PATIENCE).toBe(4);
  await hosts.filter({ hasText: /\d ms/ }).first().waitFor();
});

const seconds = (since: number) => `${((performance.now() - since) / 1000).toFixed(1)} s`;

// The browser complains about the connection to a daemon that was killed, and rightly so.
test("nothing was asked of anybody else", () => {
  expect(screen.outside).toEqual([]);
});
