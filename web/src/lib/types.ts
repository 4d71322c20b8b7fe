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
  problems: Problem[];
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
  /** The one change that would make the path direct. */
  fix?: string;
  /** Milliseconds. */
  rtt_ms?: number;
  jitter_ms?: number;
  /** 0 to 1. */
  loss?: number;
  handshake_age_s?: number;
  rx_bytes: number;
  tx_bytes: number;
}

export interface LaneStatus {
  seen: number;
  copied: number;
  delivered: number;
  dropped: Record<string, number>;
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
