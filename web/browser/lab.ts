import { execFile } from "node:child_process";
import { createSocket } from "node:dgram";
import { readFileSync } from "node:fs";
import { promisify } from "node:util";
import type { MemberStatus, PingAnswer, Setting, Status } from "../src/lib/types";

/** What the lab tells about itself (`tests/tests/ui.rs`). */
interface Lab {
  /** The `lanrage` program. */
  lanrage: string;
  /** Sockets of the daemons by role: `p1`, `p2`, `p3`, `relay`. */
  sockets: Record<string, string>;
  /** Network namespaces of the peers. */
  networks: Record<string, string>;
  /** Where screenshots go. */
  shots: string;
}

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
  const dial = ["timeout", "2", "bash", "-c", `exec 3<>/dev/tcp/${host}/${port}`];
  return run("nsenter", [`--net=/run/netns/${lab.networks[role]}`, ...dial]).then(
    () => true,
    () => false,
  );
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
