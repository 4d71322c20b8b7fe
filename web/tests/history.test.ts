import { describe, expect, it } from "vitest";
import { PathHistory, SAMPLES, sparkline } from "../src/lib/history";
import type { MemberStatus } from "../src/lib/types";

const member = (device: string, rtt_ms?: number, rx_bytes = 0) => ({ device, rtt_ms, rx_bytes, tx_bytes: 0 }) as MemberStatus;

describe("PathHistory", () => {
  it("takes one sample a second however often it is asked", () => {
    const history = new PathHistory();
    for (let ms = 0; ms < 3000; ms += 250) history.record([member("a", ms)], ms);
    expect(history.of("a")).toEqual([0, 1000, 2000]);
  });

  it("keeps the last minute", () => {
    const history = new PathHistory();
    for (let s = 0; s < 100; s++) history.record([member("a", s)], s * 1000);
    expect(history.of("a")).toHaveLength(SAMPLES);
    expect(history.of("a").at(-1)).toBe(99);
    expect(history.of("a")[0]).toBe(100 - SAMPLES);
  });

  it("shows the time without samples as a gap, and missing round trips too", () => {
    const history = new PathHistory();
    history.record([member("a", 5)], 0);
    history.record([member("a")], 1000);
    history.record([member("a", 7)], 4000);
    expect(history.of("a")).toEqual([5, null, null, null, 7]);
  });

  it("forgets who left and starts fresh when they come back", () => {
    const history = new PathHistory();
    history.record([member("a", 5), member("b", 6)], 0);
    history.record([member("a", 5)], 1000);
    expect(history.of("b")).toEqual([]);
    history.record([member("b", 8)], 5000);
    expect(history.of("b")).toEqual([8]);
  });

  it("tells whose payload moved", () => {
    const history = new PathHistory();
    history.record([member("a", 1, 10), member("b", 1, 10)], 0);
    expect(history.isActive("a")).toBe(false);
    history.record([member("a", 1, 20), member("b", 1, 10)], 1000);
    expect([history.isActive("a"), history.isActive("b")]).toEqual([true, false]);
  });
});

describe("sparkline", () => {
  it("is empty without samples", () => {
    expect(sparkline([], 120, 32)).toBe("");
    expect(sparkline([null, null], 120, 32)).toBe("");
  });

  it("ends at the right edge and breaks where samples are missing", () => {
    const path = sparkline([10, 20, null, 30, 40], 120, 32);
    expect(path.match(/M/g)).toHaveLength(2);
    expect(path.match(/L/g)).toHaveLength(2);
    expect(path).toMatch(/L120\.0 [\d.]+$/);
  });

  it("draws a sample that stands alone, and higher for longer round trips", () => {
    expect(sparkline([null, 5, null], 120, 32)).toMatch(/^M[\d.]+ [\d.]+h0\.1$/);
    const heights = [...sparkline([5, 500], 120, 32).matchAll(/[\d.]+ ([\d.]+)/g)].map((m) => Number(m[1]));
    expect(heights[0]).toBeGreaterThan(heights[1] ?? Infinity);
  });

  it("stays inside its box", () => {
    const ys = [...sparkline([0, 1, 1000, 3], 120, 32).matchAll(/[ML][\d.]+ ([\d.]+)/g)].map((m) => Number(m[1]));
    expect(ys).toHaveLength(4);
    for (const y of ys) expect(y >= 0 && y <= 32).toBe(true);
  });
});
