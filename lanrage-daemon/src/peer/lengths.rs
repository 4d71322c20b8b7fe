//! Packets for a member are as short as its path carries: a host route for each such member, with an MTU of its own. So
//! TCP makes shorter segments at both ends, and long datagrams are cut where every game's machine puts them together
//! again, instead of being lost where a router cannot or will not.

use super::event_loop::Peer;
use super::session::{Notice, Session};
use lanrage_common::identity::WgKey;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

impl Session {
    /// The path to a member carries no longer packets, or all.
    pub(super) fn set_length(&mut self, member: WgKey, mtu: Option<u16>) {
        let before = match mtu {
            Some(mtu) => {
                tracing::info!(member = %member, mtu, "the path carries shorter packets only");
                self.short.insert(member, mtu)
            }
            None => self.short.remove(&member),
        };
        if before != mtu {
            self.notices.push_back(Notice::Lengths);
        }
    }

    /// Addresses in the party to which packets must be shorter than the interface allows, and how long they may be.
    fn lengths(&self) -> BTreeMap<Ipv4Addr, u16> {
        let members = self.party.members().filter_map(|member| Some((member, *self.short.get(&member.wg)?)));
        let addresses = members.flat_map(|(member, mtu)| {
            let devices = self.party.devices_of(&member.device).iter().map(|device| device.address);
            std::iter::once(member.address).chain(devices).map(move |address| (address, mtu))
        });
        addresses.collect()
    }
}

impl Peer {
    /// Brings the routes in line with the paths.
    pub(super) async fn follow_lengths(&mut self) {
        let (Some(session), Some(interface)) = (&self.session, &mut self.interface) else { return };
        if let Err(error) = interface.set_lengths(session.lengths()).await {
            tracing::warn!(%error, "cannot limit packets to what paths carry: long ones may be lost");
        }
    }
}
