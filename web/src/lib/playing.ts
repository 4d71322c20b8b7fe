import type { Game, Status } from "./types";

/** A game that somebody in the party plays now. */
export interface Play {
  name: string;
  own: boolean;
  /** The member's name and address in the party. */
  who: string;
  address: string;
  ports: string[];
  /** How its packets are marked, where that is known. */
  dscp?: string;
  /** What is known of it; members may play what this device's LANrage does not know. */
  game?: Game;
}

/** What runs here, and what members tell; members name games, not profiles. */
export function plays(status: Status, known: Record<string, Game>): Play[] {
  const { party, games } = status;
  const byName = (name: string) => Object.values(known).find((game) => game.name === name);
  const own = (games?.running ?? []).map(({ id, name, ports, dscp }) => ({
    name,
    own: true,
    who: status.device?.name ?? "",
    address: party?.address ?? "",
    ports,
    dscp,
    game: known[id] ?? byName(name),
  }));
  const theirs = (party?.members ?? [])
    .filter((member) => !member.self)
    .flatMap((member) =>
      (member.plays ?? []).map((name) => {
        const game = byName(name);
        return { name, own: false, who: member.name, address: member.address, ports: game?.ports ?? [], game };
      }),
    );
  return [...own, ...theirs];
}
