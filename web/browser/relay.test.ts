import { expect, test } from "vitest";
import { ping, status, uiLink } from "./lab";
import { useScreen } from "./screen";

const screen = useScreen();

test("the operator's page moves with the traffic", async () => {
  const { page } = screen;
  await page.goto(await uiLink("relay"));
  await screen.go("Relay", "Relay on this computer");
  const mode = (await status("relay")).relay?.mode ?? "none";
  await page.getByText(mode, { exact: true }).waitFor();

  const rate = async () => Number((await page.getByTestId("packets").textContent())?.replace(/\D/g, ""));
  const playing = ping("p2", "Anna", 30);
  await expect.poll(rate, { timeout: 20_000, interval: 100 }).toBeGreaterThan(5);
  expect((await playing).replies.filter((reply) => reply.rtt_ms !== undefined).length).toBeGreaterThan(0);

  const members = page.getByRole("region", { name: "Members" }).getByRole("row");
  expect(await members.count()).toBe(3);
  const forwarded = page.getByRole("region", { name: "What became of packets" }).getByRole("row", { name: /^forwarded/ });
  expect(await forwarded.count()).toBeGreaterThan(0);
  await screen.look("relay");
});

test("a relay's settings count after a restart", async () => {
  await screen.go("Settings", "Settings");
  const limit = screen.page.getByRole("form", { name: "Limit in Mbit/s" });
  await limit.getByRole("textbox").fill("900");
  await limit.getByRole("button", { name: "Save" }).click();
  await limit.getByText("counts after a restart").waitFor();
});

test("nothing was asked of anybody else, and the page never complained", () => {
  expect(screen.outside).toEqual([]);
  expect(screen.complaints).toEqual([]);
});
