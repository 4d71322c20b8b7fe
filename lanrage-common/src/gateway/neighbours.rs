//! Members that are on a home network themselves, and which of them are gateways there too.
//!
//! Two gateways of a party on one network would both carry what its devices say, from addresses of their own: everybody would
//! hear it twice. So one serves the network, that with the lowest address in the party; the others keep still. They know
//! each other by a mark in what they say of their aliases (`arp::gateway_announcement`): each says it again now and then,
//! and at once when it hears of a new one.

use super::arp::Mac;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Between announcements.
const ANNOUNCE: Duration = Duration::from_secs(10);
/// Soonest after the last.
const SOON: Duration = Duration::from_secs(1);
/// A gateway that was silent for so long serves no more.
const GONE: Duration = Duration::from_secs(35);

/// See the module.
#[derive(Debug)]
pub(super) struct Neighbours {
    me: Ipv4Addr,
    /// Addresses here to overlay addresses.
    at_home: BTreeMap<Ipv4Addr, Ipv4Addr>,
    /// Their Ethernet addresses, as seen, to overlay addresses.
    macs: BTreeMap<Mac, Ipv4Addr>,
    /// Overlay addresses of those that are gateways, and when that was seen last.
    gateways: BTreeMap<Ipv4Addr, Instant>,
    announced: Option<Instant>,
    is_news: bool,
}

impl Neighbours {
    pub(super) fn new(me: Ipv4Addr) -> Self {
        Self {
            me,
            at_home: BTreeMap::new(),
            macs: BTreeMap::new(),
            gateways: BTreeMap::new(),
            announced: None,
            is_news: false,
        }
    }

    /// Replaces them, by overlay address and address here.
    pub(super) fn set(&mut self, members: impl IntoIterator<Item = (Ipv4Addr, Ipv4Addr)>) {
        self.at_home = members.into_iter().map(|(overlay, home)| (home, overlay)).collect();
        let is_here = |overlay: &Ipv4Addr| self.at_home.values().any(|here| here == overlay);
        self.macs.retain(|_, overlay| is_here(overlay));
        self.gateways.retain(|overlay, _| is_here(overlay));
    }

    /// Addresses here whose Ethernet addresses are not known.
    pub(super) fn without_mac(&self) -> Vec<Ipv4Addr> {
        let is_known = |overlay: &Ipv4Addr| self.macs.values().any(|known| known == overlay);
        self.at_home.iter().filter(|(_, overlay)| !is_known(overlay)).map(|(home, _)| *home).collect()
    }

    /// Whether the member with that overlay address is here.
    pub(super) fn has(&self, overlay: Ipv4Addr) -> bool {
        self.at_home.values().any(|here| *here == overlay)
    }

    /// Whether that is the Ethernet address of one.
    pub(super) fn is_mac(&self, mac: Mac) -> bool {
        self.macs.contains_key(&mac)
    }

    /// Somebody speaks with that address; says whether it is one of them.
    pub(super) fn handle_sender(&mut self, mac: Mac, from: Ipv4Addr) -> bool {
        if let Some(overlay) = self.at_home.get(&from).copied() {
            self.macs.retain(|known, of| *of != overlay || *known == mac);
            self.macs.insert(mac, overlay);
        }
        self.is_mac(mac)
    }

    /// It says that it is a gateway.
    pub(super) fn handle_gateway(&mut self, mac: Mac, now: Instant) {
        let Some(overlay) = self.macs.get(&mac).copied() else { return };
        self.is_news |= self.gateways.insert(overlay, now).is_none_or(|last| now >= last + GONE);
    }

    /// The gateway with the lowest address, if it is not this one.
    pub(super) fn served_by(&self, now: Instant) -> Option<Ipv4Addr> {
        let there = self.gateways.iter().filter(|(_, last)| now < **last + GONE).map(|(overlay, _)| *overlay);
        there.min().filter(|lowest| *lowest < self.me)
    }

    /// Whether this one should say that it is a gateway; then it does.
    pub(super) fn is_announcement_due(&mut self, now: Instant) -> bool {
        let wait = if self.is_news { SOON } else { ANNOUNCE };
        let is_due = !self.at_home.is_empty() && self.announced.is_none_or(|last| now >= last + wait);
        if is_due {
            (self.announced, self.is_news) = (Some(now), false);
        }
        is_due
    }
}
