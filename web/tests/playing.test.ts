import { describe, expect, it } from "vitest";
import { plays } from "../src/lib/playing";
import type { Game, MemberStatus, Status } from "../src/lib/types";

const doom: Game = { name: "Chocolate Doom", support: "lan-list", source: "", evidence: "tested", ports: ["udp/2342"] };
const member = (name: string, address: string, more: Partial<MemberStatus>) => ({ name, address, self: false, ...more }) as MemberStatus;

describe("what is played", () => {
  const status = {
    device: { name: "Ana" },
    games: { running: [{ id: "doom", name: "Chocolate Doom", ports: ["udp/2342", "udp/2343"], dscp: "CS4" }], shared: true },
    party: {
      address: "10.66.0.1",
      members: [
        member("Ana", "10.66.0.1", { self: true, plays: ["Chocolate Doom"] }),
        member("Ben", "10.66.0.2", { plays: ["Chocolate Doom", "A game of his own"] }),
        member("Cleo", "10.66.0.3", {}),
      ],
    },
  } as Status;

  it("is what runs here once, with its open ports, and what members tell, with what is known of it", () => {
    const all = plays(status, { doom });
    expect(all.map(({ who, name, ports }) => [who, name, ports.join(" ")])).toEqual([
      ["Ana", "Chocolate Doom", "udp/2342 udp/2343"],
      ["Ben", "Chocolate Doom", "udp/2342"],
      ["Ben", "A game of his own", ""],
    ]);
    expect(all.map(({ game }) => game)).toEqual([doom, doom, undefined]);
  });

  it("is nothing outside a party", () => {
    expect(plays({} as Status, { doom })).toEqual([]);
  });
});
