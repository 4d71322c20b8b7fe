import { SseParser } from "./sse";
import { strings } from "./strings";
import type { AddDeviceAnswer, ErrorBody, Finding, FirewallWord, Games, InviteAnswer, Mods, NetworkStatus, PingAnswer, RelayDetail, Setting, SettingValue, Status } from "./types";

/** The daemon refused, with a sentence for people; `status` is HTTP's. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

/** The daemon's local API, from the page that it served. */
export class Daemon {
  constructor(private readonly token: string) {}

  createParty(name: string): Promise<InviteAnswer> {
    return this.#post("party", { name });
  }
  join(invite: string): Promise<Status> {
    return this.#post("party/join", { invite });
  }
  leave(): Promise<Status> {
    return this.#post("party/leave");
  }
  invite(): Promise<InviteAnswer> {
    return this.#post("party/invite", {});
  }
  revoke(invite: string): Promise<Status> {
    return this.#post("party/revoke", { invite });
  }
  addDevice(name: string, endpoint: string): Promise<AddDeviceAnswer> {
    return this.#post("gateway/add", { name, ...(endpoint && { endpoint }) });
  }
  removeDevice(name: string): Promise<Status> {
    return this.#post("gateway/remove", { name });
  }
  firewall(said: { mode?: "games" | "open"; words?: FirewallWord[] }): Promise<Status> {
    return this.#post("firewall", said);
  }
  netcheck(): Promise<NetworkStatus> {
    return this.#post("netcheck");
  }
  async doctor(): Promise<Finding[]> {
    return (await this.#post<{ findings: Finding[] }>("doctor")).findings;
  }
  games(): Promise<Games> {
    return this.#get("games");
  }
  mods(): Promise<Mods> {
    return this.#get("mods");
  }
  relay(): Promise<RelayDetail> {
    return this.#get("relay");
  }
  async settings(): Promise<Setting[]> {
    return (await this.#get<{ settings: Setting[] }>("settings")).settings;
  }
  async change(changes: Record<string, SettingValue>): Promise<Setting[]> {
    return (await this.#post<{ settings: Setting[] }>("settings", { changes })).settings;
  }
  async log(): Promise<string[]> {
    return (await this.#get<{ lines: string[] }>("log")).lines;
  }
  /** As it comes: it is saved, not looked at. */
  bundle(): Promise<unknown> {
    return this.#get("bundle");
  }
  setUp(up: boolean): Promise<Status> {
    return this.#post(up ? "up" : "down");
  }
  ping(member: string, count: number): Promise<PingAnswer> {
    return this.#post("ping", { member, count });
  }

  /** Reads the event stream until it ends or `signal` fires. */
  async events(onStatus: (status: Status) => void, signal: AbortSignal): Promise<void> {
    const response = await this.#request("GET", "events", undefined, signal);
    if (!response.body) throw new Error("no body");
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    const parser = new SseParser();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      for (const { data } of parser.push(value)) onStatus(JSON.parse(data) as Status);
    }
  }

  #get<T>(path: string): Promise<T> {
    return this.#ask("GET", path);
  }

  #post<T>(path: string, body?: unknown): Promise<T> {
    return this.#ask("POST", path, body);
  }

  async #ask<T>(method: string, path: string, body?: unknown): Promise<T> {
    let response: Response;
    try {
      response = await this.#request(method, path, body);
    } catch (error) {
      if (error instanceof Refused) throw error;
      throw new Refused(0, "unreachable", strings.connection.undone);
    }
    return (await response.json()) as T;
  }

  async #request(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
    const headers: Record<string, string> = { authorization: `Bearer ${this.token}` };
    if (body !== undefined) headers["content-type"] = "application/json";
    const response = await fetch(`/api/v1/${path}`, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      cache: "no-store",
    });
    if (!response.ok) throw await refusal(response);
    return response;
  }
}

/** An error as a sentence. */
export const say = (error: unknown): string => (error instanceof Refused ? error.message : String(error));

async function refusal(response: Response): Promise<Refused> {
  try {
    const { code, message } = (await response.json()) as ErrorBody;
    return new Refused(response.status, code, message);
  } catch {
    return new Refused(response.status, "unknown", strings.connection.odd(response.status));
  }
}
