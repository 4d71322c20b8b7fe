/** One server-sent event. */
export interface ServerEvent {
  event: string;
  data: string;
}

/** Longest event that is believed: a status of 254 members is a tenth of it. */
const MAX_EVENT = 4 * 1024 * 1024;

/**
 * Parser of `text/event-stream` (WHATWG HTML, section 9.2.6) for input that comes in arbitrary pieces.
 * `id` and `retry` are ignored: every event is a whole state, and the caller decides when to reconnect.
 */
export class SseParser {
  #rest = "";
  #event = "";
  #data: string[] = [];
  #sawCr = false;

  /** Takes a piece of the stream and returns the events it completes. */
  push(piece: string): ServerEvent[] {
    // A lone CR ends a line, CR LF too: remember a CR at the end so that a following LF is not a second line end.
    if (this.#sawCr && piece.startsWith("\n")) piece = piece.slice(1);
    if (piece === "") return [];
    this.#sawCr = piece.endsWith("\r");
    const lines = (this.#rest + piece).split(/\r\n|\n|\r/);
    this.#rest = lines.pop() ?? "";
    if (this.#rest.length > MAX_EVENT) throw new Error("event too long");
    return lines.flatMap((line) => this.#line(line) ?? []);
  }

  #line(line: string): ServerEvent | undefined {
    if (line === "") return this.#finish();
    const colon = line.indexOf(":");
    if (colon === 0) return undefined;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") this.#data.push(value);
    else if (field === "event") this.#event = value;
    return undefined;
  }

  #finish(): ServerEvent | undefined {
    const complete = { event: this.#event || "message", data: this.#data.join("\n") };
    const has = this.#data.length > 0;
    this.#event = "";
    this.#data = [];
    return has ? complete : undefined;
  }
}
