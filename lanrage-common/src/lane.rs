//! How broadcast and multicast cross the tunnel: copied per member, carried unchanged in UDP to overlay addresses.
//!
//! Outer packet: IPv4 from the own overlay address to the member's, UDP to [`PORT`]; payload: the group packet as the
//! game sent it, but for its source address (FOU: the payload starts with the inner IP header).
//!
//! The overlay has IPv4 addresses only. IPv6 crosses it in the same wrapping: each member has the link-local address that
//! [`link_local`] makes of its overlay address, and packets between such addresses are wrapped like group packets.
//!
//! A packet that was unwrapped goes to the interface, never back into a lane, so nothing loops however many members
//! there are. What other programs repeat between networks is told by its content (`loops`).
//!
//! | module | what |
//! |---|---|
//! | `rules` | what is carried, in terms that the kernel programs share (`no_std`) |
//! | `loops` | what goes round in circles between members' networks (`no_std`) |
//! | [`maps`] | what the kernel programs are told, and what they count (`no_std`) |
//! | `device` | the lane of one device in userspace: [`Lane`] |
//! | `trace` | what programs say to everybody, and how far it came: [`Trace`]; `tally` counts it, `diagnosis` has the words |
//! | `report` | what members' lanes tell each other |

mod loops;
pub mod maps;
mod reason;
mod rules;

#[cfg(feature = "std")]
mod device;
#[cfg(feature = "std")]
mod diagnosis;
#[cfg(feature = "std")]
mod limit;
#[cfg(feature = "std")]
mod membership;
#[cfg(feature = "std")]
pub(crate) mod packet;
#[cfg(feature = "std")]
mod repeats;
#[cfg(feature = "std")]
mod report;
#[cfg(feature = "std")]
mod sockets;
#[cfg(feature = "std")]
mod tally;
#[cfg(test)]
mod tests;
#[cfg(feature = "std")]
mod trace;

pub use reason::LaneReason;
pub use rules::{
    ALLOW_MDNS, ALLOW_SSDP, ALLOW_WSD, Facts, FragmentPart, OVERHEAD, PORT, RATE, SEARCH_RATE, Way, Wrapped,
    admit, is_multicast, is_selective, link_local, member_of, selective_group,
};

/// Whether the lane carries such a group packet at all, as far as the packet itself and what is allowed
/// ([`maps::LaneLocal::allowed`]) tell.
#[cfg(feature = "std")]
pub fn may_cross(packet: &[u8], allowed: u32) -> bool {
    packet::Packet::parse(packet).is_ok_and(|it| it.check_udp().is_ok() && admit(it.facts(), allowed).is_ok())
}

/// UDP destination port and payload of a packet to everybody, wrapped for a member or as a program sent it; none of other
/// packets. Whether the destination means everybody is not looked at.
#[cfg(feature = "std")]
pub fn said_to_everybody(packet: &[u8]) -> Option<(u16, &[u8])> {
    let whole = |bytes| {
        let packet = packet::Packet::parse(bytes).ok()?;
        let (port, _) = packet.ports().filter(|_| packet.facts().part == FragmentPart::Whole)?;
        Some((port, packet.payload().get(crate::wire::UDP_LEN..)?))
    };
    match whole(packet)? {
        (PORT, inner) => whole(inner),
        bare => Some(bare),
    }
}

#[cfg(feature = "std")]
pub use device::{Inbound, Lane, Outbound, Service, allowed};
#[cfg(feature = "std")]
pub use membership::{joined, joined_groups};
#[cfg(feature = "std")]
pub use repeats::Repeats;
#[cfg(feature = "std")]
pub use report::{report_in, report_packet};
#[cfg(feature = "std")]
pub use sockets::Sockets;
#[cfg(feature = "std")]
pub use trace::{TRACE_INTERVAL, Trace, TraceMember};
