import { execFile, spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { existsSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join as path } from "node:path";
import { promisify } from "node:util";
import type { InviteAnswer, MemberStatus, PingAnswer, Setting, Status } from "../src/lib/types";

/** What the lab tells about itself (`tests/src/lab/story.rs`). */
interface Lab {
  /** The `lanrage` program. */
  lanrage: string;
  /** Sockets of the daemons by role: `p1`, `p2`, `p3`, `relay`, `control`. */
  sockets: Record<string, string>;
  /** Their network namespaces, and `net`, the internet between them. */
  networks: Record<string, string>;
  /** Where orders are written. */
  orders: string;
  /** Where screenshots go. */
  shots: string;
}

/** The relay's address (`tests/src/lab/topology.rs`). */
const RELAY = "192.0.2.6";

const file = process.env.LANRAGE_UI_LAB;
if (!file) throw new Error("LANRAGE_UI_LAB is not set: these tests are run by `cargo xtask test ui`");

export const lab = JSON.parse(readFileSync(file, "utf8")) as Lab;

const run = promisify(execFile);

/** Runs `lanrage --json` for a role's daemon, as its owner would at a terminal. */
async function ask<T>(role: string, ...words: string[]): Promise<T> {
  const socket = lab.sockets[role];
  if (!socket) throw new Error(`the lab has no ${role}`);
  const { stdout } = await run(lab.lanrage, ["--socket", socket, "--json", ...words]);
  return JSON.parse(stdout) as T;
}

/** The link that opens the page, key included. */
export const uiLink = async (role: string): Promise<string> => (await ask<{ url: string }>(role, "ui")).url;
export const status = (role: string): Promise<Status> => ask(role, "status");
export const join = (role: string, link: string): Promise<Status> => ask(role, "party", "join", link);
export const leave = (role: string): Promise<Status> => ask(role, "leave");
export const invite = async (role: string): Promise<string> => (await ask<InviteAnswer>(role, "invite")).link;
export const revoke = (role: string, link: string): Promise<Status> => ask(role, "invite", "--revoke", link);
export const down = (role: string): Promise<Status> => ask(role, "down");
export const ping = (role: string, name: string, count: number): Promise<PingAnswer> =>
  ask(role, "ping", name, "--count", String(count));

export async function setting(role: string, key: string): Promise<Setting | undefined> {
  return (await ask<{ settings: Setting[] }>(role, "settings")).settings.find((found) => found.key === key);
}

/** A member as `role` sees it. */
export async function member(role: string, name: string): Promise<MemberStatus | undefined> {
  return (await status(role)).party?.members.find((found) => found.name === name);
}

/** Whether a program on `role`'s machine gets a TCP connection; what is dropped in silence is given up. */
export async function connects(role: string, host: string, port: number): Promise<boolean> {
  return run(...inNetwork(role, "timeout", "2", "bash", "-c", `exec 3<>/dev/tcp/${host}/${port}`)).then(
    () => true,
    () => false,
  );
}

/** Runs a program on `role`'s machine. */
const inNetwork = (role: string, ...words: string[]): [string, string[]] => [
  "nsenter",
  [`--net=/run/netns/${lab.networks[role]}`, ...words],
];

/** Changes the packet filter of `role`'s machine. */
export async function filter(role: string, ...words: string[]): Promise<void> {
  await run(...inNetwork(role, "nft", ...words));
}

/** Cuts the relay's machine off from everybody, as if it were switched off; the answer plugs it in again. */
export async function unplugRelay(): Promise<() => Promise<void>> {
  await filter(
    "net",
    "add table inet unplugged; add chain inet unplugged forward { type filter hook forward priority 0; };" +
      `add rule inet unplugged forward ip saddr ${RELAY} drop; add rule inet unplugged forward ip daddr ${RELAY} drop`,
  );
  return () => filter("net", "delete table inet unplugged");
}

/** A process on `role`'s machine that goes by the name of a game's program, until it is stopped. */
export function playAs(role: string, program: string): () => void {
  const game = spawn(...inNetwork(role, "bash", "-c", `exec -a ${program} sleep 600`), { stdio: "ignore" });
  return () => void game.kill("SIGKILL");
}

/** Whether a packet from `role`'s machine to an address comes back. */
export const reaches = (role: string, address: string): Promise<boolean> =>
  run(...inNetwork(role, "ping", "-n", "-c", "1", "-W", "1", address)).then(
    () => true,
    () => false,
  );

/** Shares a folder of two files, one of them a program, from `role`'s machine until it is stopped. */
export async function shareMods(role: string, name: string): Promise<() => void> {
  const folder = mkdtempSync(path(tmpdir(), "lanrage-mods-"));
  writeFileSync(path(folder, "arena.pk3"), "x".repeat(2048));
  writeFileSync(path(folder, "mod.so"), "y");
  const words = ["--socket", lab.sockets[role] ?? "", "mods", "share", folder, "--name", name];
  const sharing = spawn(...inNetwork(role, lab.lanrage, ...words), { stdio: ["ignore", "pipe", "inherit"] });
  await new Promise<void>((resolve, reject) => {
    sharing.stdout.on("data", (text) => String(text).includes("Sharing") && resolve());
    sharing.on("exit", () => reject(new Error("it does not share")));
  });
  return () => {
    sharing.removeAllListeners("exit").kill("SIGKILL");
    rmSync(folder, { recursive: true });
  };
}

let orders = 0;

/** Kills a role's daemon as a crash would, starts it again, or makes it forget its state or its page's key. */
export async function order(verb: "kill" | "start" | "forget" | "forget-key", role: string): Promise<void> {
  const name = path(lab.orders, `${process.pid}-${(orders += 1)}`);
  writeFileSync(`${name}.new`, `${verb} ${role}`);
  renameSync(`${name}.new`, `${name}.order`);
  while (!existsSync(`${name}.done`)) await new Promise((resolve) => setTimeout(resolve, 20));
  const trouble = readFileSync(`${name}.done`, "utf8");
  if (trouble) throw new Error(`${verb} ${role}: ${trouble}`);
}

/** Calls into the LAN as a game does that looks for others; this runs on the first peer's machine. */
export async function callLan(times: number): Promise<void> {
  const socket = createSocket("udp4");
  await new Promise<void>((resolve) => socket.bind(0, resolve));
  socket.setBroadcast(true);
  for (let n = 0; n < times; n += 1) {
    await new Promise((resolve) => socket.send(`who is there? ${n}`, 27960, "255.255.255.255", resolve));
  }
  socket.close();
}

/** A server of Quake III as far as its status goes; on the first peer's machine, until it is stopped. */
export async function answerAsQuake(name: string, map: string): Promise<() => void> {
  const socket = createSocket("udp4");
  const status = `statusResponse\n\\sv_hostname\\${name}\\mapname\\${map}\\sv_maxclients\\8\n0 20 "Ben"\n`;
  socket.on("message", (_, from) => {
    socket.send(Buffer.concat([Buffer.from([255, 255, 255, 255]), Buffer.from(status)]), from.port, from.address);
  });
  await new Promise<void>((resolve) => socket.bind(27960, resolve));
  return () => socket.close();
}
