//! Group packets on an Ethernet: which of them are none of the party's business, and which have come round.

use super::arp::{EVERYBODY, Mac};
use std::collections::VecDeque;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// The same group packet on both sides within this time has come round, through another gateway or another member at
/// home, and ends here.
pub(super) const ROUND: Duration = Duration::from_secs(1);
const MAX_ROUND: usize = 2048;
/// What household software asks everybody all day long: Dropbox, Spotify, Plex, Syncthing, Tuya, Steam's own discovery of
/// streaming hosts. No game; each would cost an address.
const HOUSEHOLD: [u16; 9] = [17_500, 57_621, 32_410, 32_412, 32_414, 21_027, 6_666, 6_667, 27_036];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Home,
    Party,
}

/// What was heard on each side within the last second.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    heard: VecDeque<(Instant, u64, Side)>,
}

impl Rounds {
    /// Whether the same group packet was on the other side; remembers it on this one.
    pub(super) fn has_come(&mut self, packet: &[u8], side: Side, now: Instant) -> bool {
        while self.heard.front().is_some_and(|(at, ..)| now >= *at + ROUND) || self.heard.len() >= MAX_ROUND {
            self.heard.pop_front();
        }
        let mut hasher = DefaultHasher::new();
        // ports and payload: addresses are others on each side, and so is the checksum
        let header = usize::from(packet[0] & 0xf) * 4;
        packet.get(header..header + 6).hash(&mut hasher);
        packet.get(header + 8..).hash(&mut hasher);
        let digest = hasher.finish();
        let is_known = self.heard.iter().any(|(_, known, other)| *known == digest && *other != side);
        if !is_known {
            self.heard.push_back((now, digest, side));
        }
        is_known
    }
}

/// Whether that is household software's, and no game's.
pub(super) fn is_household(packet: &[u8]) -> bool {
    let header = usize::from(packet[0] & 0xf) * 4;
    let port = packet.get(header + 2..header + 4).map(|port| u16::from_be_bytes([port[0], port[1]]));
    port.is_some_and(|port| HOUSEHOLD.contains(&port))
}

/// Where a packet to a group goes on an Ethernet (RFC 1112, section 6.4).
pub(super) fn group_mac(to: Ipv4Addr) -> Mac {
    match to.octets() {
        [_, b, c, d] if to.is_multicast() => [0x01, 0x00, 0x5e, b & 0x7f, c, d],
        _ => EVERYBODY,
    }
}

/// The address that a DHCP server gives somebody (RFC 2131), if the packet is one's answer.
pub(super) fn given_by_dhcp(packet: &[u8]) -> Option<Ipv4Addr> {
    let header = usize::from(packet.first()? & 0xf) * 4;
    let udp = packet.get(header..)?;
    let is_answer =
        packet.get(9) == Some(&17) && udp.get(..4) == Some(&[0, 67, 0, 68]) && udp.get(8) == Some(&2);
    let given: [u8; 4] = udp.get(24..28)?.try_into().ok()?;
    is_answer.then(|| Ipv4Addr::from(given)).filter(|given| !given.is_unspecified())
}
