import type { Link, PathKind } from "./types";

export interface Place {
  x: number;
  y: number;
}

/** Room for a node's name below it and for the node itself. */
const MARGIN = { x: 70, top: 30, bottom: 50 };

/** Members on an ellipse, the first at the top; two side by side. */
export function places(members: string[], width: number, height: number): Record<string, Place> {
  const middle = { x: width / 2, y: MARGIN.top + (height - MARGIN.top - MARGIN.bottom) / 2 };
  const reach = { x: width / 2 - MARGIN.x, y: (height - MARGIN.top - MARGIN.bottom) / 2 };
  const start = members.length === 2 ? Math.PI : -Math.PI / 2;
  return Object.fromEntries(
    members.map((member, n) => {
      const angle = start + (2 * Math.PI * n) / members.length;
      return [member, { x: middle.x + reach.x * Math.cos(angle), y: middle.y + reach.y * Math.sin(angle) }];
    }),
  );
}

export interface Edge {
  a: string;
  b: string;
  path: PathKind;
  rtt_ms?: number;
}

/** One line for each pair that talks: of what both ends say, the longer round trip. */
export function edges(links: Link[]): Edge[] {
  const found = new Map<string, Edge>();
  for (const { from, to, path, rtt_ms } of links) {
    if (path === "none") continue;
    const [a, b] = from < to ? [from, to] : [to, from];
    const known = found.get(`${a} ${b}`);
    if (!known || (rtt_ms ?? 0) > (known.rtt_ms ?? 0)) found.set(`${a} ${b}`, { a, b, path, rtt_ms });
  }
  return [...found.values()];
}
