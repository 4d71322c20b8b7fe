// A pretend daemon for working on the page: serves dist/ and a made-up, moving state with the daemon's API and security headers.
// usage: node dev/fixture.mjs [empty|party|trouble] [port]      then open the printed address
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join } from "node:path";
import { fileURLToPath } from "node:url";

const DIST = fileURLToPath(new URL("../dist/", import.meta.url));
const TOKEN = "fixture-token";
const [scenario = "party", port = "8670"] = process.argv.slice(2);
const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };
const HEADERS = {
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
};

const started = Date.now();
const wobble = (base, seed) =>
  base * (1 + 0.12 * Math.sin(Date.now() / 900 + seed) + 0.08 * Math.sin(Date.now() / 310 + seed * 3));
const grow = (perSecond) => Math.floor(((Date.now() - started) / 1000) * perSecond);
const member = (name, n, more) => ({
  name,
  device: Buffer.from(`device ${name}`.padEnd(32, ".")).toString("base64url"),
  wg: Buffer.from(`tunnel ${name}`.padEnd(32, ".")).toString("base64"),
  address: `10.66.0.${n}`,
  self: false,
  host: false,
  online: true,
  path: "none",
  why: "",
  rx_bytes: 0,
  tx_bytes: 0,
  ...more,
});

const members = () => [
  member("Mira", 1, { self: true, host: true, why: "this device" }),
  member("Ana", 2, {
    path: "direct",
    endpoint: "203.0.113.7:41641",
    why: "Direct: both routers keep one port per program.",
    rtt_ms: wobble(18.2, 1),
    jitter_ms: 0.8,
    loss: 0,
    devices: [{ name: "switch", kind: "wireguard", address: "10.66.0.17" }],
    handshake_age_s: grow(1) % 120,
    rx_bytes: 48_312_004 + grow(9400),
    tx_bytes: 12_004_511 + grow(4100),
  }),
  member("Ben", 3, {
    path: "relay",
    endpoint: "198.51.100.20:3478",
    relay: "fra1",
    standby: "ams2",
    relay_why: "42 ms over both legs; ams2: 55 ms",
    why: "Relayed with Ben because both routers choose a new port for every destination; UPnP in either would fix it.",
    rtt_ms: wobble(41, 2),
    jitter_ms: 3.4,
    loss: 0.004,
    handshake_age_s: 61,
    rx_bytes: 910_233,
    tx_bytes: 1_204_992,
  }),
  member("Káťa von und zu Langnamenhausen", 4, {
    online: false,
    why: "Offline for three minutes; the last path was direct.",
    rx_bytes: 1200,
    tx_bytes: 900,
  }),
];

const trouble = scenario === "trouble";
const relay = () => ({
  addresses: ["198.51.100.20:3478"],
  mode: trouble ? "userspace" : "xdp-generic",
  mode_reason: trouble
    ? "the kernel refused the program: operation not permitted"
    : "driver virtio_net of eth0 has no free queue for native XDP",
  mode_fix: trouble ? "run the relay as root or give it CAP_BPF and CAP_NET_ADMIN" : "ethtool -L eth0 combined 2",
  bindings: 3,
  flows: 4,
  kernel_forwarded: trouble ? 0 : 1_204_331 + grow(512),
  userspace_forwarded: trouble ? 20_411 + grow(300) : 18,
  kernel: { forwarded: 1_204_331 + grow(512), handshake: 74, stun_binding: 311, unknown_flow: 6 },
  userspace: { handshake_routed: 74, bad_mac1: 1 },
});

let joined = scenario !== "empty";
let up = true;

const party = () => ({
  id: "qz9f0n2kAAAAAAAAAAAAAA",
  name: "Friday night",
  subnet: "10.66.0.0/16",
  address: "10.66.0.1",
  interface: "lanrage0",
  mtu: 1420,
  host: true,
  members: scenario === "empty" ? members().slice(0, 1) : members(),
  lane:
    scenario === "empty"
      ? { seen: 0, copied: 0, delivered: 0, dropped: {} }
      : {
          mode: trouble ? "userspace" : "kernel",
          ...(trouble ? { mode_reason: "the kernel has neither tcx nor clsact", mode_fix: "use Linux 6.1 or later" } : { hook: "tcx" }),
          seen: 1240 + grow(2),
          copied: 3720 + grow(6),
          delivered: trouble ? 0 : 402 + grow(1),
          captured: 3,
          trace: trace(),
          dropped: { rate_limited: 12, duplicate: 3 },
          members: trouble ? {} : { "10.66.0.2": { sent: 1860 + grow(3), failed: 0 }, "10.66.0.3": { sent: 1860 + grow(3), failed: 4 } },
        },
  relays: relays(),
  ...(scenario === "empty" ? {} : { servers: servers(), matrix: matrix() }),
});

const servers = () => [
  { member: "10.66.0.2", host: "Ana", own: false, game: "quake-3", title: "Quake III Arena, ioquake3", name: "Ana's arena", map: "oa_minia", players: 3, max_players: 8, password: false, protocol: "udp", address: "10.66.0.2:27960", rtt_ms: wobble(19, 4) },
  { member: "10.66.0.1", host: "Mira", own: true, game: "minecraft-java", title: "Minecraft: Java Edition (Open to LAN)", name: "A house for goats", players: 1, max_players: 20, password: true, protocol: "tcp", address: "10.66.0.1:25565" },
];

const link = (from, to, path, rtt_ms, quality) => ({ from: `10.66.0.${from}`, to: `10.66.0.${to}`, path, rtt_ms, jitter_ms: 0.8, loss: 0, quality });
const matrix = () => ({
  links: [
    link(1, 2, "direct", wobble(18, 1), 100),
    link(1, 3, "relay", wobble(41, 2), 88),
    link(2, 1, "direct", 18.4, 100),
    link(2, 3, "tls", 64.1, 77),
    link(3, 1, "relay", 40.2, 88),
  ],
  hosts: [
    { member: "10.66.0.1", name: "Mira", worst_rtt_ms: 41, worst_with: "Ben", quality: 88 },
    { member: "10.66.0.2", name: "Ana", worst_rtt_ms: 64.1, worst_with: "Ben", quality: 77 },
    { member: "10.66.0.3", name: "Ben", worst_rtt_ms: 64.1, worst_with: "Ana", quality: 77 },
  ],
  advice: "Mira is the best host: the longest round trip is 41 ms, to Ben; with Ana it would be 64 ms.",
});

const trace = () => [
  {
    from: "10.66.0.1", name: "Mira", own: true, destination: "255.255.255.255", port: 27960, games: ["Quake III Arena, ioquake3"], seen: 8, copied: 16, dropped: 0, rung: "answered",
    receivers: [
      { member: "10.66.0.2", name: "Ana", delivered: 8, answered: 8, rung: "answered" },
      { member: "10.66.0.3", name: "Ben", delivered: 8, answered: 0, rung: "delivered", missing: { code: "nobody_listens", message: "Ben's machine got it 8 times, but no program there listens on UDP 27960", fix: "start the game's server there, or open its list of local games" } },
    ],
  },
  { from: "10.66.0.2", name: "Ana", own: false, destination: "224.0.2.60", port: 4445, games: ["Minecraft: Java Edition (Open to LAN)"], seen: 40, copied: 0, dropped: 0, rung: "delivered" },
  { from: "10.66.0.1", name: "Mira", own: true, destination: "255.255.255.255", port: 30100, seen: 3, copied: 0, dropped: 3, rung: "seen", missing: { code: "rate_limited", message: "more than 200 packets a second to port 30100: dropped", fix: "nothing, if the game is found all the same" } },
];

const games = () => ({
  games: {
    "quake-3": { name: "Quake III Arena, ioquake3", titles: ["Quake III Arena", "OpenArena", "ioquake3"], support: "lan-list", note: "Each probe is sent twice: both must arrive.", source: "source of ioquake3", evidence: "tested", ports: ["udp/27960"], query: { protocol: "quake3", ports: ["27960-27963"] }, discovery: { sender: "client", to: ["broadcast"], ports: ["27960-27963"] } },
    valheim: { name: "Valheim", support: "direct-ip", source: "server documentation of the publisher", evidence: "vendor", ports: ["udp/2456-2458"] },
    fortnite: { name: "Fortnite", support: "online-only", note: "Only its publisher's servers.", source: "the publisher", evidence: "vendor" },
  },
  unusable: [{ file: "/etc/lanrage/games/mine.toml", why: "missing field `support`" }],
});

const relays = () => [
  { name: "fra1", region: "eu-central", addresses: ["198.51.100.20:3478"], state: "ready", load: 12, held: true, rtt_ms: wobble(21, 3), jitter_ms: 0.6, members: 1, why: "this device's best" },
  { name: "ams2", region: "", addresses: ["198.51.100.30:3478"], state: "draining", load: 0, held: false, members: 0, why: "being emptied by its operator" },
];

const network = () => ({
  nat: { udp_blocked: trouble, is_public: false, public_address: "203.0.113.50", mapping: "address_and_port_dependent", has_ipv6: false, is_cgnat: trouble },
  servers: [{ relay: "fra1", address: "198.51.100.20:3478", mapped: "203.0.113.50:41000", rtt_ms: 21.2 }],
  protocols: ["upnp"],
  not_forwarded: "The router speaks UPnP but refuses: switch it on in the router's settings.",
});

const findings = () => [
  { check: "daemon", level: "good", what: "version 0.1.0, roles control relay peer" },
  { check: "tunnel", ...(up ? { level: "good", what: "lanrage0 has 10.66.0.1" } : { level: "bad", what: "the tunnel is down", fix: "take it up: lanrage up", cure: "up" }) },
  { check: "nat", level: "warning", what: "another port for every destination (symmetric NAT)", fix: "let LANrage ask the router for a port: set `peer.port_mapping = true`", cure: "allow_port_mapping" },
  { check: "routes", level: "bad", what: "224.0.0.0/4 does not go to lanrage0: games search elsewhere", fix: "lanrage down && lanrage up puts the routes back; another program that takes them must be stopped", cure: "reconnect" },
  { check: "clock", level: "good", what: "agrees with the control server's" },
];

const settings = [
  { key: "peer.name", value: "Mira", effect: "reconnect", pending: false },
  { key: "peer.port_mapping", value: true, effect: "live", pending: false },
  { key: "peer.lane", value: "auto", effect: "live", pending: false },
  { key: "peer.mtu", value: 1420, effect: "reconnect", pending: false, locked: "environment variable LANRAGE_PEER__MTU" },
  { key: "peer.control", value: null, effect: "live", pending: false },
  { key: "peer.stun_servers", value: [], effect: "live", pending: false },
  { key: "peer.lane_services", value: [], effect: "live", pending: false },
  { key: "gateway.lan", value: ["eth0"], effect: "live", pending: false },
  { key: "gateway.alias_range", value: null, effect: "live", pending: false },
  { key: "gateway.listen", value: "[::]:51820", effect: "live", pending: false },
  { key: "relay.mode", value: "auto", effect: "restart", pending: false },
  { key: "relay.max_mbit_per_s", value: 500, effect: "restart", pending: true },
  { key: "log.filter", value: "info", effect: "restart", pending: false },
];

const detail = () => {
  const { kernel, userspace, ...rest } = relay();
  const reasons = (counters) =>
    Object.entries({ ...counters, rate_member: 0 }).map(([name, packets]) => ({ name, what: `What ${name.replaceAll("_", " ")} means, in a sentence.`, packets, bytes: packets * 220 }));
  return {
    at_ms: Date.now() - started,
    status: { ...rest, kernel, userspace, registered: !trouble, draining: false },
    name: "fra1",
    region: "eu-central",
    max_bindings: 16384,
    max_flows: 65536,
    kernel: reasons(kernel),
    userspace: reasons(userspace),
    members: [1, 2, 3].map((slot) => ({ slot, key: `gI6EdU${slot}`, party: "qz9f0n2k", address: `203.0.113.${slot}:41641`, kernel_packets: 400_000 + grow(170 * slot), kernel_bytes: 1, userspace_packets: 6, userspace_bytes: 1, dropped: slot === 3 ? 12 : 0 })),
  };
};

const log = () =>
  Array.from({ length: 60 }, (_, n) => `2026-11-27T22:${String(n).padStart(2, "0")}:21.123456Z  INFO lanrage_daemon::peer::event_loop: peer is ready device=gI6EdU… name="Mira" port=41641`);

const firewall = {
  mode: "games",
  words: [{ ports: "udp/27015-27020", choice: "allow" }],
  reached: ["tcp/25565"],
  players: [27960],
  games: [],
  refused_total: { service: 3, system: 12 },
  refused: [
    { member: "Jonas", address: "10.66.0.3", port: "tcp/22", packets: 3, why: "ssh: no game", may_be_game: false },
    { member: "Jonas", address: "10.66.0.3", port: "tcp/7777", packets: 12, why: "a program of the system listens there", may_be_game: true },
  ],
};

const devices = [{ name: "steamdeck", address: "10.66.0.9", kind: "wireguard", heard_s: 12, rx_bytes: 1, tx_bytes: 1 }];

const GETS = {
  "/api/v1/status": () => status(),
  "/api/v1/relay": detail,
  "/api/v1/games": games,
  "/api/v1/settings": () => ({ settings }),
  "/api/v1/log": () => ({ lines: log() }),
  "/api/v1/bundle": () => ({ about: "a support bundle", status: status(), doctor: findings(), settings: { settings }, log: log() }),
};

const status = () => ({
  version: "0.1.0",
  roles: ["control", "relay", "peer"],
  up,
  device: { name: "Mira", key: "bWlyYQ", fingerprint: "8JbE0bq2n0l6mVYx3s5b1A" },
  ...(joined && { party: party(), control: { url: "http://198.51.100.20:8667", connected: !trouble } }),
  relay: relay(),
  ...(joined && up && { network: network(), gateway: { devices }, firewall }),
  server: { public_url: "http://198.51.100.20:8667", online: 3, relays: 1 },
  problems: trouble
    ? [
        {
          code: "control_unreachable",
          message: "The control server http://198.51.100.20:8667 does not answer: connection refused",
          fix: "Check that it runs (systemctl status lanrage-control) and that port 8667/tcp is open.",
        },
      ]
    : [],
});

/** Looks like a QR code, is none. */
function pattern() {
  let squares = "";
  for (let y = 0; y < 33; y++)
    for (let x = 0; x < 33; x++) if ((x * 7 + y * 13 + x * y * 3) % 5 < 2) squares += `M${x} ${y}h1v1h-1z`;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="-2 -2 37 37"><rect x="-2" y="-2" width="37" height="37" fill="#fff"/><path d="${squares}"/></svg>`;
}

const invite = () => ({
  link: "http://198.51.100.20:8667/j/AAECAwQFBgcICQoLDA0ODw#AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQECAgICAgICAgICAgICAgIC",
  qr_svg: pattern(),
  expires_at: Math.floor(Date.now() / 1000) + 86_400,
});

const POSTS = {
  "/api/v1/party": () => ((joined = true), invite()),
  "/api/v1/party/join": (body) => {
    if (body.invite.includes("expired"))
      throw { status: 410, code: "invite_expired", message: "The invite has expired: ask for a new link." };
    joined = true;
    return status();
  },
  "/api/v1/party/leave": () => ((joined = false), status()),
  "/api/v1/party/invite": invite,
  "/api/v1/up": () => ((up = true), status()),
  "/api/v1/down": () => ((up = false), status()),
  "/api/v1/party/revoke": () => status(),
  "/api/v1/gateway/add": ({ name }) => {
    devices.push({ name, address: `10.66.0.${10 + devices.length}`, kind: "wireguard", rx_bytes: 0, tx_bytes: 0 });
    return { name, address: "10.66.0.10", endpoint: "192.168.1.5:51820", config: "[Interface]\nPrivateKey = …", qr_svg: pattern(), notes: ["The device must be in the same home: name an endpoint for others."] };
  },
  "/api/v1/firewall": ({ mode, words = [] }) => {
    firewall.mode = mode ?? firewall.mode;
    for (const word of words) {
      firewall.words = firewall.words.filter(({ ports }) => ports !== word.ports);
      if (word.choice !== "auto") firewall.words.push(word);
      if (word.choice === "allow") firewall.refused = firewall.refused.filter(({ port }) => port !== word.ports);
    }
    return status();
  },
  "/api/v1/gateway/remove": ({ name }) => (devices.splice(devices.findIndex((device) => device.name === name), 1), status()),
  "/api/v1/netcheck": network,
  "/api/v1/doctor": () => ({ findings: findings() }),
  "/api/v1/settings": ({ changes }) => {
    for (const [key, value] of Object.entries(changes)) {
      const setting = settings.find((known) => known.key === key);
      if (key === "peer.mtu" || value === "bad") throw { status: 400, code: "bad_request", message: `\`${key}\`: this cannot be` };
      Object.assign(setting, { value, pending: setting.effect === "restart" });
    }
    return { settings };
  },
  "/api/v1/ping": (body) => ({
    member: body.member,
    address: body.member,
    replies: [{ rtt_ms: 42.1, path: "relay" }, { rtt_ms: 40.2, path: "relay" }, { path: "relay" }, { rtt_ms: 18.4, path: "direct" }],
  }),
};

async function bodyOf(request) {
  let text = "";
  for await (const piece of request) text += piece;
  return text ? JSON.parse(text) : {};
}

function json(response, code, value) {
  response.writeHead(code, { ...HEADERS, "content-type": "application/json" }).end(JSON.stringify(value));
}

function stream(request, response) {
  response.writeHead(200, { ...HEADERS, "content-type": "text/event-stream" });
  const send = () => response.write(`data: ${JSON.stringify(status())}\n\n`);
  send();
  const timer = setInterval(send, 250);
  request.on("close", () => clearInterval(timer));
}

async function file(path, response) {
  const name = join(DIST, path === "/" ? "index.html" : path);
  try {
    if (!name.startsWith(DIST)) throw new Error("outside dist/");
    const content = await readFile(name);
    response.writeHead(200, { ...HEADERS, "content-type": TYPES[extname(name)] ?? "application/octet-stream" }).end(content);
  } catch {
    response.writeHead(404, HEADERS).end("not found; did you run `npm run build`?");
  }
}

async function api(request, response, path) {
  if (request.headers.authorization !== `Bearer ${TOKEN}`)
    return json(response, 401, { code: "unauthorized", message: "Open the page by the address that LANrage printed." });
  if (request.method === "GET" && GETS[path]) return json(response, 200, GETS[path]());
  if (path === "/api/v1/events") return stream(request, response);
  const post = request.method === "POST" && POSTS[path];
  if (!post) return json(response, 404, { code: "not_found", message: "no such request" });
  try {
    json(response, 200, post(await bodyOf(request)));
  } catch (error) {
    json(response, error.status ?? 400, { code: error.code ?? "bad_request", message: error.message });
  }
}

createServer((request, response) => {
  const { pathname } = new URL(request.url, "http://fixture");
  return pathname.startsWith("/api/") ? api(request, response, pathname) : file(pathname, response);
}).listen(Number(port), "127.0.0.1", () => console.log(`http://127.0.0.1:${port}/#token=${TOKEN}  (${scenario})`));
