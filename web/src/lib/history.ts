import type { MemberStatus } from "./types";

/** Samples a sparkline shows. */
export const SAMPLES = 60;
/** Milliseconds between two samples. */
export const STEP_MS = 1000;

/** What is remembered of a member's path: milliseconds, and loss from 0 to 1. */
export type Measure = "rtt_ms" | "jitter_ms" | "loss";
const MEASURES: Measure[] = ["rtt_ms", "jitter_ms", "loss"];

/** The last minute of every member's path, a sample a second; `null` where there was none. */
export class PathHistory {
  #samples = new Map<string, (number | null)[]>();
  #totals = new Map<string, number>();
  #active = new Set<string>();
  #last = -Infinity;

  /** Takes a sample of every member when the last one is a step old; returns whether it did. */
  record(members: MemberStatus[], now: number): boolean {
    if (now - this.#last < STEP_MS * 0.9) return false;
    const missed = Math.min(SAMPLES, Math.round((now - this.#last) / STEP_MS) - 1);
    this.#last = now;
    const next = new Map<string, (number | null)[]>();
    for (const member of members) {
      for (const measure of MEASURES) {
        const key = `${measure} ${member.device}`;
        const old = this.#samples.get(key) ?? [];
        const gap = missed > 0 && old.length > 0 ? Array<null>(missed).fill(null) : [];
        next.set(key, [...old, ...gap, member[measure] ?? null].slice(-SAMPLES));
      }
    }
    this.#samples = next;
    this.#recordTraffic(members);
    return true;
  }

  /** Whether payload went to or came from the device during the last step. */
  isActive(device: string): boolean {
    return this.#active.has(device);
  }

  #recordTraffic(members: MemberStatus[]): void {
    const before = this.#totals;
    this.#totals = new Map(members.map((m) => [m.device, m.rx_bytes + m.tx_bytes]));
    const moved = members.filter((m) => before.has(m.device) && before.get(m.device) !== this.#totals.get(m.device));
    this.#active = new Set(moved.map((m) => m.device));
  }

  /** Oldest first. */
  of(device: string, measure: Measure = "rtt_ms"): (number | null)[] {
    return this.#samples.get(`${measure} ${device}`) ?? [];
  }
}

/**
 * Pieces of an SVG path through the samples in a box; a `null` breaks the line. A single sample is a dot-long line. The
 * box is at least `range` high, so that the noise of a good connection looks calm.
 */
export function sparkline(samples: (number | null)[], width: number, height: number, range = 10): string {
  const known = samples.filter((s): s is number => s !== null);
  if (known.length === 0) return "";
  const top = Math.max(range, Math.max(...known) * 1.15);
  const step = width / (SAMPLES - 1);
  const start = SAMPLES - samples.length;
  let pen = false;
  let path = "";
  samples.forEach((sample, i) => {
    if (sample === null) {
      pen = false;
      return;
    }
    const x = ((start + i) * step).toFixed(1);
    const y = (height - 1 - (sample / top) * (height - 2)).toFixed(1);
    const alone = !pen && (samples[i + 1] ?? null) === null;
    path += pen ? `L${x} ${y}` : `M${x} ${y}${alone ? "h0.1" : ""}`;
    pen = true;
  });
  return path;
}
