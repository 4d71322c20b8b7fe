import { expect, test } from "vitest";
import { filter, order, reaches, uiLink, unplugRelay } from "./lab";
import { useScreen } from "./screen";

const CUT_FROM_CONTROL =
  "add table inet cut; add chain inet cut out { type filter hook output priority 0; }; add rule inet cut out tcp dport 8667 drop";

const screen = useScreen();
const problems = () => screen.page.getByRole("region", { name: "Needs your attention" });
const ben = () =>
  screen.page.getByRole("listitem").filter({ has: screen.page.getByRole("heading", { name: "ben", exact: true }) });
const inviteButton = () => screen.page.getByRole("button", { name: "Invite a friend", exact: true });

test("with the relay away, the page says whom that cuts off, what to do, and when it is over", async () => {
  await screen.page.goto(await uiLink("p1"));
  await ben().locator(".badge", { hasText: "relay" }).waitFor();
  const plugIn = await unplugRelay();
  const started = performance.now();
  await ben().locator(".badge", { hasText: "no path" }).waitFor();
  await ben().getByText("no relay is reached now").waitFor();
  // the server takes it off its list after 15 s
  await problems().getByText(/No relay answers: lab \(192\.0\.2\.6:3478\)|the control server knows no relay/i).waitFor();
  await problems().getByText(/whoever runs it must start it/).waitFor();
  console.log(`from the relay's end to what the page says: ${seconds(started)}`);
  await screen.look("relay-away");
  const healed = performance.now();
  await plugIn();
  await ben().locator(".badge", { hasText: "relay" }).waitFor();
  await problems().waitFor({ state: "detached" });
  console.log(`from its return to a page without problems: ${seconds(healed)}`);
});

test("with the control server away the party goes on, and the page says what does not", async () => {
  const { page } = screen;
  await order("kill", "control");
  const panel = page.getByRole("region", { name: "Control server", exact: true });
  await panel.getByText("not connected").waitFor();
  await panel.getByText("New members cannot join").waitFor();
  await inviteButton().click();
  const refusal = page.getByRole("alert").filter({ hasText: "annot reach the control server" });
  await refusal.getByRole("button", { name: "Hide" }).click();
  await refusal.waitFor({ state: "detached" });
  expect(await reaches("p1", "10.66.0.2")).toBe(true);
  await problems().getByText("No connection to the control server").waitFor();
  await problems().getByText("until then the party goes on").waitFor();

  await filter("p2", CUT_FROM_CONTROL);
  await order("start", "control");
  await problems().waitFor({ state: "detached" });
  await panel.getByText("connected", { exact: true }).waitFor();
  await inviteButton().click();
  await page.getByRole("textbox", { name: "Invite link" }).waitFor();
  // he is not back at the server, but he answers
  await ben().getByText("online", { exact: true }).waitFor();
  await filter("p2", "delete table inet cut");
});

test("when LANrage dies, the page says how to start it, keeps what it knew, and comes back by itself", async () => {
  const { page } = screen;
  await order("kill", "p1");
  const banner = page.getByRole("alert").filter({ hasText: "Trying again by itself" });
  await banner.getByText("sudo systemctl start lanrage").waitFor();
  await screen.heading("Friday night");
  await inviteButton().click();
  await page.getByRole("alert").getByText("That did not work").waitFor();
  await screen.look("daemon-away");
  await page.getByRole("navigation").getByRole("link", { name: "Settings" }).click();
  const unanswered = page.getByText("That did not work");
  await unanswered.waitFor();
  await order("start", "p1");
  await banner.waitFor({ state: "detached" });
  await page.getByText("live", { exact: true }).waitFor();
  // what could not be shown is shown, without a click
  await page.getByRole("form", { name: "What is logged" }).waitFor();
  await unanswered.waitFor({ state: "detached" });
});

test("with another key the page locks itself and says how to open it again", async () => {
  const { page } = screen;
  await order("kill", "p1");
  await order("forget-key", "p1");
  await order("start", "p1");
  await screen.heading("This page needs its key");
  await page.getByText("lanrage ui").waitFor();
  expect(await page.getByRole("navigation").count(), "nothing else is offered").toBe(0);
  await page.goto(await uiLink("p1"));
  await screen.heading("Friday night");
});

// The browser complains about connections to a daemon that was killed, and rightly so.
test("nothing was asked of anybody else", () => {
  expect(screen.outside).toEqual([]);
});

const seconds = (since: number) => `${((performance.now() - since) / 1000).toFixed(1)} s`;
