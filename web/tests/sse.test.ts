import { describe, expect, it } from "vitest";
import { SseParser } from "../src/lib/sse";

const data = (pieces: string[]) => {
  const parser = new SseParser();
  return pieces.flatMap((piece) => parser.push(piece)).map((event) => event.data);
};

describe("SseParser", () => {
  it("gives an event only when its blank line has come", () => {
    const parser = new SseParser();
    expect(parser.push("data: one\n")).toEqual([]);
    expect(parser.push("\n")).toEqual([{ event: "message", data: "one" }]);
  });

  it("gives the same events however the stream is cut", () => {
    const text = 'event: status\r\ndata: {"a":1}\r\n\r\n: keep-alive\n\ndata: x\ndata: y\n\ndata\r\rdata:no blank\n\n';
    const whole = new SseParser().push(text);
    expect(whole).toEqual([
      { event: "status", data: '{"a":1}' },
      { event: "message", data: "x\ny" },
      { event: "message", data: "" },
      { event: "message", data: "no blank" },
    ]);
    for (let at = 1; at < text.length; at++) {
      const parser = new SseParser();
      expect([...parser.push(text.slice(0, at)), ...parser.push(text.slice(at))], `cut at ${at}`).toEqual(whole);
    }
    const byCharacter = new SseParser();
    expect([...text].flatMap((c) => byCharacter.push(c))).toEqual(whole);
  });

  it("keeps colons in values and takes away one blank only", () => {
    expect(data(["data:  a:b \n\n"])).toEqual([" a:b "]);
  });

  it("skips comments and fields it does not know, and events without data", () => {
    expect(data([": hello\n", "id: 7\nretry: 10\n\n", "event: nothing\n\n", "data: z\n\n"])).toEqual(["z"]);
  });

  it("does not carry an event's name over to the next", () => {
    const parser = new SseParser();
    parser.push("event: a\ndata: 1\n\n");
    expect(parser.push("data: 2\n\n")).toEqual([{ event: "message", data: "2" }]);
  });

  it("refuses to collect without end", () => {
    const parser = new SseParser();
    expect(() => {
      for (let i = 0; i < 100; i++) parser.push("x".repeat(100_000));
    }).toThrow("too long");
  });
});
