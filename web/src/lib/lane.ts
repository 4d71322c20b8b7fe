import type { LaneStatus } from "./types";

export type Advice = "quiet" | "unsent" | "unheard" | "heard" | "works";

/** What the system and other programs say into every LAN: seen, and never carried. */
const CHATTER = ["igmp", "not_udp", "dhcp", "netbios", "llmnr", "mdns", "ssdp", "wsd"];

const ECHO = "unwrapped";

export interface Calls {
  /** Of games on this computer. */
  seen: number;
  copied: number;
  delivered: number;
  /** Seen, but not of a game. */
  chatter: number;
  /** Came from the party, and would have gone round in circles. */
  echoes: number;
  /** Reasons and counts of what should have been carried. */
  dropped: [string, number][];
}

/** The lane's counters as far as they are about games. */
export function calls({ seen, copied, delivered, dropped }: LaneStatus): Calls {
  const counts = Object.entries(dropped).filter(([, count]) => count > 0);
  const chatter = counts.filter(([reason]) => CHATTER.includes(reason)).reduce((sum, [, count]) => sum + count, 0);
  return {
    seen: Math.max(0, seen - chatter),
    copied,
    delivered,
    chatter,
    echoes: dropped[ECHO] ?? 0,
    dropped: counts.filter(([reason]) => reason !== ECHO && !CHATTER.includes(reason)),
  };
}

/** Which rung of the ladder from game to game is missing. */
export function advice({ seen, copied, delivered }: Pick<Calls, "seen" | "copied" | "delivered">): Advice {
  if (seen === 0) return delivered > 0 ? "heard" : "quiet";
  if (delivered > 0) return "works";
  return copied > 0 ? "unheard" : "unsent";
}
