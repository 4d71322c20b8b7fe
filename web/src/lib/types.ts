/** The daemon's local API as JSON: the counterpart of `lanrage-common/src/api.rs`. */

export type PathKind = "direct" | "relay" | "tls" | "none";
export type RelayMode = "xdp-native" | "xdp-generic" | "userspace";

export interface Status {
  version: string;
  roles: string[];
  up: boolean;
  device?: DeviceStatus;
  party?: PartyStatus;
  control?: ControlStatus;
  relay?: RelayStatus;
  server?: ServerStatus;
  network?: NetworkStatus;
  gateway?: { devices: GatewayDevice[] };
  firewall?: FirewallStatus;
  games?: GamesStatus;
  problems: Problem[];
}

/** Known games that run on this computer. */
export interface GamesStatus {
  running: { id: string; name: string; ports: string[]; dscp: string }[];
  /** Whether the other members are told. */
  shared: boolean;
}

export interface Problem {
  code: string;
  message: string;
  fix: string;
}

export interface DeviceStatus {
  name: string;
  key: string;
  fingerprint: string;
}

export interface PartyStatus {
  id: string;
  name: string;
  subnet: string;
  address: string;
  interface?: string;
  mtu: number;
  host: boolean;
  members: MemberStatus[];
  lane: LaneStatus;
  relays?: RelayChoice[];
  servers?: GameServer[];
  matrix?: Matrix;
}

/** A game server that runs at a member. */
export interface GameServer {
  member: string;
  host: string;
  own: boolean;
  game: string;
  title: string;
  name: string;
  map?: string;
  players?: number;
  max_players?: number;
  password: boolean;
  protocol: "udp" | "tcp";
  address: string;
  /** Milliseconds, through the tunnel. */
  rtt_ms?: number;
}

/** How one member reaches another, as it has measured. */
export interface Link {
  from: string;
  to: string;
  path: PathKind;
  rtt_ms?: number;
  jitter_ms?: number;
  loss?: number;
  /** 0 to 100. */
  quality?: number;
}

export interface Matrix {
  links: Link[];
  /** The best first. */
  hosts: { member: string; name: string; worst_rtt_ms: number; worst_with: string; quality: number }[];
  advice?: string;
}

export interface MemberStatus {
  name: string;
  device: string;
  wg: string;
  address: string;
  self: boolean;
  host: boolean;
  online: boolean;
  path: PathKind;
  endpoint?: string;
  relay?: string;
  standby?: string;
  relay_why?: string;
  why: string;
  /** Games that run there, as it tells. */
  plays?: string[];
  /** The one change that would make the path direct. */
  fix?: string;
  /** Milliseconds. */
  rtt_ms?: number;
  jitter_ms?: number;
  /** 0 to 1. */
  loss?: number;
  /** How well one can play with it, 0 to 100. */
  quality?: number;
  handshake_age_s?: number;
  rx_bytes: number;
  tx_bytes: number;
  /** Devices without LANrage that take part through it. */
  devices?: { name: string; address: string }[];
}

/** A device that takes part through this one. */
export interface GatewayDevice {
  name: string;
  address: string;
  /** Seconds since it was heard from. */
  heard_s?: number;
}

/** What members reach on this machine. */
export interface FirewallStatus {
  mode: "games" | "open";
  words: FirewallWord[];
  /** Such as `tcp/25565` or `udp/27015-27020`. */
  reached: string[];
  players: number[];
  refused_total: Record<string, number>;
  refused: RefusedPort[];
}

/** What was said about ports; the last word about a port counts. */
export interface FirewallWord {
  ports: string;
  choice: "allow" | "deny" | "auto";
}

export interface RefusedPort {
  member?: string;
  address: string;
  port: string;
  packets: number;
  why: string;
  may_be_game: boolean;
}

/** How to configure a device; shown once. */
export interface AddDeviceAnswer {
  name: string;
  address: string;
  endpoint: string;
  config: string;
  qr_svg?: string;
  notes: string[];
}

/** A relay as this device sees it. */
export interface RelayChoice {
  name: string;
  region?: string;
  addresses: string[];
  state: string;
  /** Percent. */
  load: number;
  held: boolean;
  rtt_ms?: number;
  jitter_ms?: number;
  loss?: number;
  members: number;
  why: string;
}

export interface LaneStatus {
  mode?: "kernel" | "userspace";
  hook?: string;
  mode_reason?: string;
  mode_fix?: string;
  seen: number;
  copied: number;
  spared?: number;
  replayed?: number;
  delivered: number;
  captured?: number;
  home_copied?: number;
  source_fixed?: number;
  destination_fixed?: number;
  dropped: Record<string, number>;
  /** By address in the party. */
  members?: Record<string, { sent: number; failed: number }>;
  /** Multicast groups by address in the party; who is not there has not said it. */
  joined?: Record<string, string[]>;
  trace?: Conversation[];
}

export type Rung = "seen" | "copied" | "delivered" | "answered";

/** What one program says to everybody, and how far it came. */
export interface Conversation {
  from: string;
  name: string;
  own: boolean;
  destination: string;
  port: number;
  games?: string[];
  seen: number;
  copied: number;
  dropped: number;
  rung: Rung;
  missing?: Problem;
  receivers?: { member: string; name: string; delivered?: number; answered: number; rung: Rung; missing?: Problem }[];
}

export type Support = "lan-list" | "direct-ip" | "unchecked" | "not-carried" | "online-only";

/** What is known of a game. */
export interface Game {
  name: string;
  titles?: string[];
  support: Support;
  note?: string;
  source: string;
  evidence: string;
  ports?: string[];
  service?: string;
  query?: { protocol: string; ports: string[] };
  discovery?: { sender: "client" | "host"; to: string[]; ports: string[] };
}

export interface Games {
  games: Record<string, Game>;
  unusable: { file: string; why: string }[];
}

/** What members share. */
export interface Mods {
  shares: { member: string; address: string; name: string; id: string; files: number; bytes: number; programs: number }[];
  refused?: { member: string; why: string }[];
}

/** What is known of the NAT; absent = unknown. */
export interface Nat {
  udp_blocked?: boolean | null;
  is_public?: boolean | null;
  public_address?: string | null;
  mapping?: "endpoint_independent" | "address_dependent" | "address_and_port_dependent" | null;
  filtering?: "endpoint_independent" | "address_dependent" | "address_and_port_dependent" | null;
  is_cgnat?: boolean | null;
  has_ipv6?: boolean | null;
  lifetime_s?: number | null;
}

export interface NetworkStatus {
  nat: Nat;
  servers: { relay?: string; address: string; mapped?: string; rtt_ms?: number }[];
  protocols: ("none" | "upnp" | "nat_pmp" | "pcp")[];
  forwarded?: string;
  not_forwarded?: string;
  pinhole?: { address: string; by: "upnp" | "pcp" };
  no_pinhole?: string;
  captive_portal?: boolean;
}

export interface ControlStatus {
  url: string;
  connected: boolean;
}

export interface ServerStatus {
  public_url: string;
  online: number;
  relays: number;
}

export interface RelayTlsStatus {
  address: string;
  connections: number;
  received: number;
  sent: number;
  dropped: number;
}

export interface RelayStatus {
  addresses: string[];
  tls?: RelayTlsStatus;
  registered?: boolean;
  draining?: boolean;
  mode: RelayMode;
  mode_reason?: string;
  mode_fix?: string;
  bindings: number;
  flows: number;
  kernel_forwarded: number;
  userspace_forwarded: number;
  kernel: Record<string, number>;
  userspace: Record<string, number>;
}

/** The relay in this process in all detail; rates are differences between two of them. */
export interface RelayDetail {
  at_ms: number;
  status: RelayStatus;
  name: string;
  region: string;
  max_bindings: number;
  max_flows: number;
  kernel: ReasonCount[];
  userspace: ReasonCount[];
  members: RelayMember[];
}

export interface ReasonCount {
  name: string;
  what: string;
  packets: number;
  bytes: number;
}

export interface RelayMember {
  slot: number;
  key: string;
  party: string;
  address: string;
  kernel_packets: number;
  kernel_bytes: number;
  userspace_packets: number;
  userspace_bytes: number;
  dropped: number;
}

export type Level = "good" | "warning" | "bad";
export type Cure = "up" | "reconnect" | "netcheck" | "allow_port_mapping";

export interface Finding {
  check: string;
  level: Level;
  what: string;
  fix?: string;
  cure?: Cure;
}

export type SettingValue = string | number | boolean | string[] | null;

export interface Setting {
  key: string;
  value: SettingValue;
  effect: "live" | "reconnect" | "restart";
  pending: boolean;
  locked?: string;
}

export interface InviteAnswer {
  link: string;
  qr_svg: string;
  /** Unix seconds. */
  expires_at: number;
  uses_left?: number;
}

export interface PingAnswer {
  member: string;
  address: string;
  replies: { rtt_ms?: number; path: PathKind }[];
}

export interface ErrorBody {
  code: string;
  message: string;
}
