import type { MemberStatus } from "./types";

/** Samples a sparkline shows. */
export const SAMPLES = 60;
/** Milliseconds between two samples. */
export const STEP_MS = 1000;

/** Round trips of the last minute, one a second, per device; `null` where there was none. */
export class RttHistory {
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
      const old = this.#samples.get(member.device) ?? [];
      const gap = missed > 0 && old.length > 0 ? Array<null>(missed).fill(null) : [];
      next.set(member.device, [...old, ...gap, member.rtt_ms ?? null].slice(-SAMPLES));
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
  of(device: string): (number | null)[] {
    return this.#samples.get(device) ?? [];
  }
}

/** Pieces of an SVG path through the samples in a box; a `null` breaks the line. A single sample is a dot-long line. */
export function sparkline(samples: (number | null)[], width: number, height: number): string {
  const known = samples.filter((s): s is number => s !== null);
  if (known.length === 0) return "";
  // At least 10 ms of range: the noise of a good connection should look calm.
  const top = Math.max(10, Math.max(...known) * 1.15);
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
