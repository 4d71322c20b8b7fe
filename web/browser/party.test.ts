import { readFileSync } from "node:fs";
import { createServer } from "node:net";
import { expect, test } from "vitest";
import { answerAsQuake, callLan, connects, down, join, member, playAs, setting, shareMods, status, uiLink } from "./lab";
import { PATIENCE, useScreen } from "./screen";

const screen = useScreen();
let link = "";

test("without its key the page says how to get it", async () => {
  await screen.page.goto(new URL("/", await uiLink("p1")).href);
  await screen.heading("This page needs its key");
  await screen.look("locked");
});

test("first run: name and party in two clicks, by keyboard alone", async () => {
  const { page } = screen;
  await page.goto(await uiLink("p1"));
  await screen.heading("No party yet");
  expect(page.url(), "the key does not stay in the address bar").not.toContain("token");
  await screen.look("first-run");

  await page.keyboard.press("Tab");
  expect(await screen.focused()).toContain("Skip to");
  await page.keyboard.press("Enter");
  await screen.tabTo("Your name");
  await page.keyboard.type("Anna");
  await screen.tabTo("Party name");
  await page.keyboard.type("Friday night");
  await page.keyboard.press("Enter");
  await screen.heading("Friday night");
  expect((await status("p1")).device?.name).toBe("Anna");

  const field = page.getByRole("textbox", { name: "Invite link" });
  link = await field.inputValue();
  expect(link).toMatch(/^http:\/\/192\.0\.2\.\d+:8667\/j\/[\w-]+#[\w-]+$/);
  const picture = page.getByRole("img", { name: "The invite link as a QR code" });
  expect(await picture.evaluate((image: HTMLImageElement) => image.naturalWidth)).toBeGreaterThan(20);
  await screen.tabTo("Copy link");
  await page.keyboard.press("Enter");
  expect(await page.evaluate(() => navigator.clipboard.readText())).toBe(link);
  await screen.look("invite");
});

test("a friend who joins by the link appears, with path, reason and round trip", async () => {
  const { page } = screen;
  const started = performance.now();
  await join("p2", link);
  const ben = page.getByRole("listitem").filter({ has: page.getByRole("heading", { name: "ben" }) });
  await ben.locator(".badge", { hasText: "relay" }).waitFor();
  console.log(`from the link to a path on the page: ${Math.round(performance.now() - started)} ms`);
  await expect.poll(async () => Number(await ben.locator(".rtt b").textContent()), PATIENCE).toBeGreaterThan(0);
  // The sentence may change while we look.
  const isExplained = async () => {
    const why = (await member("p1", "ben"))?.why.toLowerCase() ?? "?";
    return (await ben.locator(".why").textContent())?.toLowerCase().includes(why);
  };
  await expect.poll(isExplained, PATIENCE).toBe(true);
  // words, not colours alone
  await ben.getByText(/^quality: (very good|fair|poor), \d+ of 100$/).waitFor();
  await ben.locator("summary").click();
  await ben.getByRole("img", { name: /^jitter to ben over the last minute/ }).waitFor();
  await ben.getByRole("button", { name: "Ping" }).click();
  await ben.getByText("4 of 4 answered").waitFor();
  await screen.look("party");
});

test("an invite that is taken back lets nobody in", async () => {
  const { page } = screen;
  await page.getByRole("button", { name: "Take back" }).click();
  await page.getByText("Taken back").waitFor();
  await expect(join("p3", link)).rejects.toThrow(/taken back|revoked/);
  await page.getByRole("button", { name: "Hide" }).click();
});

test("a phone is taken in by a QR code, and turned out", async () => {
  const { page } = screen;
  const panel = page.getByRole("region", { name: "Phones and other devices" });
  await panel.getByRole("button", { name: "Add a device" }).click();
  await panel.getByRole("textbox", { name: "Its name" }).fill("pixel");
  await panel.getByRole("button", { name: "Make its QR code" }).click();
  await panel.getByRole("img", { name: "The configuration of pixel as a QR code" }).waitFor();
  await screen.look("device");
  await panel.getByRole("button", { name: "Done" }).click();
  await panel.getByRole("listitem").getByText("pixel").waitFor();
  await panel.getByRole("button", { name: "Remove pixel" }).click();
  await panel.getByText("takes part through this computer").waitFor();
});

test("a friend who was turned away is let in with a click, and out again", async () => {
  const { page } = screen;
  const panel = page.getByRole("region", { name: "What friends reach here" });
  // the tests run as root, as a service does: nothing tells that this is a game
  const server = createServer((socket) => socket.destroy()).listen(7777, "0.0.0.0");
  try {
    expect(await connects("p2", "10.66.0.1", 7777)).toBe(false);
    await panel.getByText(/^ben tried tcp\/7777/).waitFor();
    await screen.look("firewall");
    await panel.getByRole("button", { name: "Let in tcp/7777" }).click();
    await panel.getByText("Let in by you").waitFor();
    expect(await connects("p2", "10.66.0.1", 7777)).toBe(true);
    await panel.getByRole("button", { name: "Take back what was said about tcp/7777" }).click();
    await panel.getByText("Let in by you").waitFor({ state: "detached" });
    expect(await connects("p2", "10.66.0.1", 7777)).toBe(false);
    await panel.getByRole("switch").click();
    await panel.getByText("Everything that listens").waitFor();
    expect(await connects("p2", "10.66.0.1", 7777)).toBe(true);
    await panel.getByRole("switch").click();
    await panel.getByText("and nothing else").waitFor();
  } finally {
    server.close();
  }
});

test("discovery shows what games call, and which rung is missing", async () => {
  const { page } = screen;
  await screen.go("Discovery", "LAN discovery");
  await page.getByText("No game has called yet").waitFor();
  await callLan(5);
  const seen = async () => Number(await page.getByTestId("seen").textContent());
  await expect.poll(seen, PATIENCE).toBeGreaterThanOrEqual(5);
  await page.getByText("Games here are calling, but nothing has come").waitFor();
  const call = page.getByRole("row").filter({ hasText: "255.255.255.255:27960" }).filter({ hasText: "at ben" });
  await call.getByText("no program there listens on UDP 27960").waitFor();
  await screen.look("discovery");
});

test("a server that runs here is listed, and its address copied", async () => {
  const { page } = screen;
  await screen.go("Servers", "Game servers");
  await page.getByText("No game server runs in the party").waitFor();
  const stop = await answerAsQuake("Anna's arena", "q3dm17");
  const row = page.getByRole("row").filter({ hasText: "Anna's arena" });
  await row.getByText("q3dm17").waitFor();
  await row.getByText("1 of 8").waitFor();
  await row.getByRole("button", { name: "Copy the address of Anna's arena" }).click();
  expect(await page.evaluate(() => navigator.clipboard.readText())).toBe("10.66.0.1:27960");
  await page.getByText("With two it does not matter who hosts").waitFor();
  await screen.look("servers");
  stop();
  await page.getByText("No game server runs in the party").waitFor();
});

test("what is played is shown to everybody, with how to join it", async () => {
  const { page } = screen;
  await screen.go("Games", "Games");
  const panel = page.getByRole("region", { name: "Played now" });
  await panel.getByText("No known game runs").waitFor();
  const games = [playAs("p1", "freeciv-server"), playAs("p2", "chocolate-doom")];
  try {
    const own = panel.getByRole("listitem").filter({ hasText: "Freeciv on this computer" });
    await own.getByText("Open to friends while it runs").waitFor();
    await own.getByText("AF21").waitFor();
    const bens = panel.getByRole("listitem").filter({ hasText: "Chocolate Doom ben" });
    await bens.getByText("Hosts appear in the game's own list of LAN games.").waitFor();
    await bens.getByText("udp/2342").waitFor();
    await bens.getByRole("button", { name: "Copy the address of ben" }).click();
    expect(await page.evaluate(() => navigator.clipboard.readText())).toBe("10.66.0.2");
    await screen.look("playing");
  } finally {
    games.forEach((stop) => stop());
  }
  await panel.getByText("No known game runs").waitFor();
});

test("games are found by their titles, each with how it is joined", async () => {
  const { page } = screen;
  await screen.go("Games", "Games");
  await page.getByRole("textbox", { name: "Find a game" }).fill("openarena");
  await page.getByText(/^1 of \d+ games$/).waitFor();
  await page.getByText("Quake III Arena, ioquake3").click();
  await page.getByText("broadcast at UDP port 27960-27963").waitFor();
  await screen.look("games");
});

test("a friend's mods are shown, with the command that takes them", async () => {
  const { page } = screen;
  const panel = page.getByRole("region", { name: "Mods" });
  const look = panel.getByRole("button", { name: "See who shares" });
  await look.click();
  await panel.getByText("Nobody shares mods now.").waitFor();
  const stop = await shareMods("p2", "arena maps");
  try {
    const row = panel.getByRole("row").filter({ hasText: "arena maps" });
    const isThere = async () => {
      await look.click();
      await panel.getByText(/shares? mods/).waitFor();
      return row.count();
    };
    await expect.poll(isThere, PATIENCE).toBe(1);
    await row.getByText("1 may be a program").waitFor();
    await row.getByText("2.0 KiB").waitFor();
    await row.getByRole("button", { name: "Copy the command that takes the mods of ben" }).click();
    expect(await page.evaluate(() => navigator.clipboard.readText())).toBe("lanrage mods get 10.66.0.2 FOLDER");
    await screen.look("mods");
  } finally {
    stop();
  }
});

test("every page is reached and left by the keyboard, and shows where it is", async () => {
  const { page } = screen;
  for (const name of ["Party", "Servers", "Discovery", "Games", "Network", "Relay", "Settings", "Support"]) {
    await page.locator("body").press("Home");
    await page.getByRole("navigation").getByRole("link", { name }).focus();
    await page.keyboard.press("Enter");
    await page.getByRole("navigation").locator(`[aria-current="page"]`, { hasText: name }).waitFor();
    const hidden = await screen.tabThrough();
    expect(hidden, `without a visible focus on ${name}`).toEqual([]);
  }
});

test("leaving is asked about in a dialog that Escape closes", async () => {
  const { page } = screen;
  await screen.go("Party", "Friday night");
  await page.getByRole("button", { name: "Leave" }).click();
  await page.getByRole("dialog").getByText("Leave Friday night?").waitFor();
  await screen.look("leave-dialog");
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "hidden" });
  expect(await screen.focused()).toContain("Leave");
});

test("the doctor mends what a click can mend", async () => {
  const { page } = screen;
  await screen.go("Network", "Network");
  const tunnel = page.getByRole("listitem").filter({ has: page.getByRole("heading", { name: /^Tunnel/ }) });
  await tunnel.getByText("lanrage0 has 10.66.0.1").waitFor();
  await page.getByRole("img", { name: /^Map of 2 members and 1 connections/ }).waitFor();
  await page.getByRole("table", { name: "Every connection" }).getByRole("row").filter({ hasText: "ben" }).first().waitFor();
  await screen.look("network");
  await down("p1");
  await page.getByRole("button", { name: "Look again" }).click();
  await tunnel.getByText("the tunnel is down").waitFor();
  await tunnel.getByRole("button", { name: "Connect" }).click();
  await tunnel.getByText("lanrage0 has 10.66.0.1").waitFor();
  expect((await status("p1")).up).toBe(true);
});

test("every switch in the settings does something, and what cannot be is explained", async () => {
  const { page } = screen;
  await screen.go("Settings", "Settings");
  const field = (name: string) => page.getByRole("form", { name, exact: true });
  const write = async (name: string, text: string) => {
    await field(name).getByRole("textbox").fill(text);
    await field(name).getByRole("button", { name: "Save" }).click();
  };
  await screen.look("settings");

  await write("Your name", "Anna the First");
  await field("Your name").getByText("Saved and at work.").waitFor();
  await expect.poll(() => member("p2", "Anna the First"), PATIENCE).toBeTruthy();

  await field("Broadcasts are carried by").getByRole("combobox").selectOption("userspace");
  await field("Broadcasts are carried by").getByText("Saved and at work.").waitFor();
  expect((await status("p1")).party?.lane).toMatchObject({ mode: "userspace", mode_reason: "the configuration asks for userspace" });

  await write("Packet size", "9000");
  await field("Packet size").getByRole("alert").getByText("1440").waitFor();
  await write("Packet size", "1380");
  await field("Packet size").getByText("Saved and at work.").waitFor();
  expect((await status("p1")).party?.mtu).toBe(1380);

  await write("Networks of consoles", "eth9");
  await field("Networks of consoles").getByRole("alert").getByText("no interface eth9").waitFor();

  await field("Ask the router for a port").getByRole("switch").click();
  await field("Ask the router for a port").getByText("Saved and at work.").waitFor();
  expect((await setting("p1", "peer.port_mapping"))?.value).toBe(false);

  await write("What is logged", "info");
  await field("What is logged").getByText("Saved; it counts when").waitFor();
  expect(await setting("p1", "log.filter")).toMatchObject({ value: "info", pending: true });
  await screen.look("settings-changed");
});

test("the doctor offers to ask the router again", async () => {
  const { page } = screen;
  await screen.go("Network", "Network");
  await expect.poll(async () => (await status("p1")).network?.nat.mapping, PATIENCE).toBeTruthy();
  await page.getByRole("button", { name: "Look again" }).click();
  await page.getByRole("button", { name: "Ask the router" }).click();
  await expect.poll(async () => (await setting("p1", "peer.port_mapping"))?.value, PATIENCE).toBe(true);
});

test("the support bundle has what helps, and nothing that opens anything", async () => {
  const { page } = screen;
  await screen.go("Support", "Support");
  await page.getByRole("log").getByText("peer is ready").first().waitFor();
  await screen.look("support");
  const downloading = page.waitForEvent("download");
  await page.getByRole("button", { name: "Save the support bundle" }).click();
  const download = await downloading;
  expect(download.suggestedFilename()).toMatch(/^lanrage-support-\d{4}-\d\d-\d\d\.json$/);
  const text = readFileSync(await download.path(), "utf8");
  const bundle = JSON.parse(text) as Record<string, unknown>;
  expect(Object.keys(bundle)).toEqual(expect.arrayContaining(["version", "system", "status", "doctor", "settings", "log"]));
  const [code = "", fragment = ""] = (link.split("/j/")[1] ?? "").split("#");
  const token = (await uiLink("p1")).split("token=")[1] ?? "";
  for (const secret of [code, fragment, token]) {
    expect(secret.length).toBeGreaterThan(20);
    expect(text.includes(secret), "a secret is in the bundle").toBe(false);
  }
});

test("a computer without a relay says how to run one", async () => {
  await screen.go("Relay", "Relay on this computer");
  await screen.page.getByText("No relay runs on this computer").waitFor();
  await screen.look("relay-none");
});

test("nothing was asked of anybody else, and the page never complained", () => {
  expect(screen.outside).toEqual([]);
  expect(screen.complaints).toEqual([]);
});
