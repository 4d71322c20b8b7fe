import { expect, test } from "vitest";
import { edges, places } from "../src/lib/map";
import type { Link } from "../src/lib/types";

const link = (from: string, to: string, rtt_ms?: number, path: Link["path"] = "direct"): Link => ({ from, to, path, rtt_ms });

test("a pair is one line, with the longer round trip, and who is not reached has none", () => {
  const links = [link("a", "b", 10), link("b", "a", 14, "relay"), link("a", "c", undefined, "none"), link("c", "b")];
  expect(edges(links)).toEqual([
    { a: "a", b: "b", path: "relay", rtt_ms: 14 },
    { a: "b", b: "c", path: "direct", rtt_ms: undefined },
  ]);
});

test("nobody stands on another or outside", () => {
  for (let count = 1; count <= 16; count += 1) {
    const at = Object.values(places(Array.from({ length: count }, (_, n) => `m${n}`), 640, 360));
    expect(at).toHaveLength(count);
    at.forEach(({ x, y }, n) => {
      expect(x >= 60 && x <= 580 && y >= 20 && y <= 320, `${count}: ${x} ${y}`).toBe(true);
      for (const other of at.slice(n + 1)) expect(Math.hypot(x - other.x, y - other.y)).toBeGreaterThan(40);
    });
  }
});
