//! The tunnel seam: what the peer needs of WireGuard, whoever implements it.
//!
//! A tunnel knows members by key, tells them apart by inner address (a member's AllowedIPs are its /32, and one for each
//! device behind it), and sends wherever the path agent says. It neither owns a socket nor an interface: datagrams and packets go through a
//! [`TunnelSink`].

mod link;
pub mod userspace;
mod waiting;

#[cfg(test)]
mod tests;

use lanrage_common::identity::WgKey;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// How often [`Tunnel::handle_timeout`] wants to run.
pub const TICK: Duration = Duration::from_millis(100);

/// A member as the tunnel sees it.
#[derive(Clone, PartialEq, Eq)]
pub struct TunnelMember {
    /// Its WireGuard public key.
    pub key: WgKey,
    /// The pair's preshared key.
    pub preshared_key: [u8; 32],
    /// The source address of its own packets, and the destination that goes to it.
    pub address: Ipv4Addr,
}

impl std::fmt::Debug for TunnelMember {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TunnelMember")
            .field("key", &self.key)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// Where datagrams for a member go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelPath {
    /// Data goes here: the member's own address, or a relay's.
    pub endpoint: SocketAddr,
    /// The relay through which handshakes go, also while data goes direct: so the relay always knows the session's
    /// indexes, and falling back to it costs nothing.
    pub relay: Option<SocketAddr>,
    /// A second relay that sees the same handshakes, to take over without any when the first one dies.
    pub standby: Option<SocketAddr>,
    /// Where data goes as well, for a moment in which the endpoint does not answer as it should. The receiver drops the
    /// second copy as a replay.
    pub copy: Option<SocketAddr>,
}

impl TunnelPath {
    /// The relays that shall know the session.
    pub fn relays(&self) -> impl Iterator<Item = SocketAddr> + use<> {
        self.relay.into_iter().chain(self.standby.filter(|standby| Some(*standby) != self.relay))
    }
}

/// What the tunnel has done for one member.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TunnelStats {
    /// Age of the session in use; none without a session.
    pub handshake_age: Option<Duration>,
    /// Inner bytes received.
    pub rx_bytes: u64,
    /// Inner bytes sent.
    pub tx_bytes: u64,
}

/// Takes what the tunnel produces, at once: buffers are reused.
pub trait TunnelSink {
    /// Sends a datagram from the tunnel's socket.
    fn transmit(&mut self, to: SocketAddr, datagram: &[u8]);
    /// Takes a decrypted IPv4 packet of a member; its source address is that member's, or of a device behind it.
    fn deliver(&mut self, from: &WgKey, packet: &[u8]);
    /// A member's tunnel has sent a keepalive: authentic, but without a packet.
    fn alive(&mut self, from: &WgKey);
}

/// WireGuard between this device and the members of its party.
pub trait Tunnel: Send {
    /// Adds a member, or replaces one whose key is known.
    fn set_member(&mut self, member: TunnelMember, now: Instant);
    /// Replaces the addresses of devices behind a member: it may send from them, and what goes to them goes to it. Those
    /// that another member has are left out. Its session goes on.
    fn set_devices(&mut self, key: &WgKey, addresses: &[Ipv4Addr]);
    /// Forgets a member and its session.
    fn remove_member(&mut self, key: &WgKey);
    /// Moves a member's traffic, keeping the session; `None` holds it until there is a path again.
    fn set_path(&mut self, key: &WgKey, path: Option<TunnelPath>, now: Instant, sink: &mut dyn TunnelSink);
    /// Encrypts and sends an IPv4 packet to the member that has its destination address; queues it (bounded) when
    /// there is no session yet. Says whether there is such a member.
    fn send(&mut self, packet: &[u8], now: Instant, sink: &mut dyn TunnelSink) -> bool;
    /// Takes a WireGuard datagram (first byte 1–4) from the socket.
    fn handle_datagram(&mut self, from: SocketAddr, datagram: &[u8], now: Instant, sink: &mut dyn TunnelSink);
    /// Handshakes, rekeys, keepalives; call every [`TICK`].
    fn handle_timeout(&mut self, now: Instant, sink: &mut dyn TunnelSink);
    /// The member that has this inner address.
    fn member_at(&self, address: Ipv4Addr) -> Option<WgKey>;
    /// Sends an empty data message of the session to this address of a member. False when there is no session.
    fn confirm(&mut self, key: &WgKey, to: SocketAddr, sink: &mut dyn TunnelSink) -> bool;
    /// Of one member.
    fn stats(&self, key: &WgKey) -> Option<TunnelStats>;
    /// Dropped datagrams and packets, by reason.
    fn dropped(&self) -> &BTreeMap<&'static str, u64>;
}

/// Destination address of an IPv4 packet with a plausible header.
pub(crate) fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    if packet.len() < 20 || packet[0] >> 4 != 4 {
        return None;
    }
    packet[16..20].try_into().ok().map(<Ipv4Addr as From<[u8; 4]>>::from)
}
