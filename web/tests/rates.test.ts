import { expect, test } from "vitest";
import { rate } from "../src/lib/format";
import { advice, calls } from "../src/lib/lane";
import { rates } from "../src/lib/rates";
import { pageOf } from "../src/lib/router.svelte";
import type { RelayDetail } from "../src/lib/types";

function detail(at_ms: number, packets: number, dropped = 0): RelayDetail {
  const reasons = [
    { name: "forwarded", what: "", packets, bytes: packets * 200 },
    { name: "no_flow", what: "", packets: dropped, bytes: 0 },
  ];
  return {
    at_ms,
    status: {
      addresses: [],
      mode: "xdp-native",
      bindings: 1,
      flows: 2,
      kernel_forwarded: packets,
      userspace_forwarded: 0,
      kernel: {},
      userspace: {},
    },
    name: "lab",
    region: "",
    max_bindings: 10,
    max_flows: 10,
    kernel: reasons,
    userspace: [],
    members: [
      { slot: 3, key: "k", party: "p", address: "a", kernel_packets: packets, kernel_bytes: 0, userspace_packets: 0, userspace_bytes: 0, dropped: 0 },
    ],
  };
}

test("rates are differences over the relay's own time", () => {
  const found = rates(detail(1000, 50, 1), detail(3000, 250, 5));
  expect(found).toEqual({
    packets: 100,
    bits: 160_000,
    reasons: { "kernel/forwarded": 100, "kernel/no_flow": 2 },
    members: { 3: 100 },
  });
});

test("there is no rate without two looks, and none below zero after a restart", () => {
  expect(rates(undefined, detail(1000, 5))).toBeUndefined();
  expect(rates(detail(1000, 5), detail(1000, 9))).toBeUndefined();
  expect(rates(detail(9000, 500), detail(1000, 2))).toBeUndefined();
  expect(rates(detail(1000, 500), detail(2000, 2))?.packets).toBe(0);
});

test("rates read well", () => {
  expect([0, 512.4, 9999, 12_345, 1_949_000].map(rate)).toEqual(["0", "512", "9\u202f999", "12.3 k", "1.95 M"]);
});

test("the missing rung is named", () => {
  const lane = (seen: number, copied: number, delivered: number) => advice({ seen, copied, delivered });
  expect([lane(0, 0, 0), lane(4, 0, 0), lane(4, 8, 0), lane(4, 8, 1), lane(0, 0, 1)]).toEqual([
    "quiet",
    "unsent",
    "unheard",
    "works",
    "heard",
  ]);
});

test("what the system says into the LAN is no game's call", () => {
  const lane = { seen: 9, copied: 4, delivered: 0, dropped: { ssdp: 3, not_udp: 2, rate_limited: 1, mdns: 0, unwrapped: 4 } };
  expect(calls(lane)).toEqual({ seen: 4, copied: 4, delivered: 0, chatter: 5, echoes: 4, dropped: [["rate_limited", 1]] });
  expect(calls({ ...lane, seen: 2 }).seen).toBe(0);
});

test("addresses of pages that do not exist lead to the party", () => {
  expect(["#/network", "#network", "", "#/", "#/admin", "#token=x"].map(pageOf)).toEqual([
    "network",
    "network",
    "party",
    "party",
    "party",
    "party",
  ]);
});
