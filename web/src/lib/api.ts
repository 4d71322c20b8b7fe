import { SseParser } from "./sse";
import { strings } from "./strings";
import type { ErrorBody, InviteAnswer, PingAnswer, Status } from "./types";

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

  async #post<T>(path: string, body?: unknown): Promise<T> {
    let response: Response;
    try {
      response = await this.#request("POST", path, body);
    } catch (error) {
      if (error instanceof Refused) throw error;
      throw new Refused(0, "unreachable", strings.connection.lost);
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

async function refusal(response: Response): Promise<Refused> {
  try {
    const { code, message } = (await response.json()) as ErrorBody;
    return new Refused(response.status, code, message);
  } catch {
    return new Refused(response.status, "unknown", strings.connection.odd(response.status));
  }
}
