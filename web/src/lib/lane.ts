import type { LaneStatus } from "./types";

export type Advice = "quiet" | "unsent" | "unheard" | "heard" | "works";

/** Which rung of the ladder from game to game is missing. */
export function advice({ seen, copied, delivered }: Pick<LaneStatus, "seen" | "copied" | "delivered">): Advice {
  if (seen === 0) return delivered > 0 ? "heard" : "quiet";
  if (delivered > 0) return "works";
  return copied > 0 ? "unheard" : "unsent";
}
