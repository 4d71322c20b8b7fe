import type { RelayDetail } from "./types";

/** Samples that a chart of a minute shows. */
export const RATE_SAMPLES = 60;

/** What a relay did between two looks, a second. */
export interface Rates {
  packets: number;
  bits: number;
  /** Packets by plane and reason, `kernel/forwarded`. */
  reasons: Record<string, number>;
  /** Packets by a member's slot. */
  members: Record<number, number>;
}

/** Rates between two looks; none across a restart of the relay, or without time between them. */
export function rates(before: RelayDetail | undefined, now: RelayDetail): Rates | undefined {
  const seconds = (now.at_ms - (before?.at_ms ?? now.at_ms)) / 1000;
  if (!before || seconds <= 0) return undefined;
  const perSecond = (count: number) => Math.max(0, count) / seconds;
  const reasons: Record<string, number> = {};
  for (const plane of ["kernel", "userspace"] as const) {
    const old = new Map(before[plane].map((reason) => [reason.name, reason.packets]));
    for (const { name, packets } of now[plane]) reasons[`${plane}/${name}`] = perSecond(packets - (old.get(name) ?? 0));
  }
  const oldMembers = new Map(before.members.map((member) => [member.slot, member]));
  const members = Object.fromEntries(
    now.members.map((member) => {
      const old = oldMembers.get(member.slot);
      return [member.slot, perSecond(old ? carried(member) - carried(old) : 0)];
    }),
  );
  return { packets: perSecond(forwarded(now) - forwarded(before)), bits: perSecond(8 * (bytes(now) - bytes(before))), reasons, members };
}

const carried = (member: { kernel_packets: number; userspace_packets: number }) =>
  member.kernel_packets + member.userspace_packets;
const forwarded = ({ status }: RelayDetail) => status.kernel_forwarded + status.userspace_forwarded;
const bytes = (detail: RelayDetail) =>
  [...detail.kernel, ...detail.userspace].filter(({ name }) => name === "forwarded").reduce((sum, { bytes }) => sum + bytes, 0);
