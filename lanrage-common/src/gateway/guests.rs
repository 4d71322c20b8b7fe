//! The devices at home that take part: by Ethernet address, with an address in the party once one is leased.

use super::arp::Mac;
use crate::devices::MAX_DEVICES;
use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Packets of a device that wait for its address in the party.
const MAX_PENDING: usize = 8;
/// An address that was refused is asked for again after this.
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// What a device sends waits so long after it got its address: members must have heard of it.
pub(super) const SPREAD: Duration = Duration::from_millis(500);

/// One of them.
#[derive(Debug, Clone)]
pub(super) struct Guest {
    /// Its address at home.
    pub(super) ip: Ipv4Addr,
    overlay: Option<Ipv4Addr>,
    asked: Option<Instant>,
    /// Until then its address is on its way to the members, who would drop what comes from it.
    quiet: Option<Instant>,
    seen: Instant,
    /// Group packets as they were, and others.
    pending: VecDeque<Vec<u8>>,
    /// Bytes from it into the party.
    pub(super) rx: u64,
    /// Bytes of the party to it.
    pub(super) tx: u64,
}

/// A device at home, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LanDevice {
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its address at home.
    pub ip: Ipv4Addr,
    /// Its address in the party.
    pub overlay: Ipv4Addr,
    /// Since when it is silent.
    pub seen: Instant,
    /// Bytes from it into the party.
    pub rx: u64,
    /// Bytes of the party to it.
    pub tx: u64,
}

/// Where a device stands with its address in the party.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It speaks from there.
    Speaks(Ipv4Addr),
    /// It has none yet, or members do not know it yet.
    Waits,
    /// The same, and the caller must ask for one.
    Wants,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Guests {
    by_mac: BTreeMap<Mac, Guest>,
    /// Of those that have one: overlay address to Ethernet address.
    by_overlay: BTreeMap<Ipv4Addr, Mac>,
}

impl Guests {
    /// Those that have an address in the party.
    pub(super) fn all(&self) -> impl Iterator<Item = LanDevice> + '_ {
        self.by_mac.iter().filter_map(|(mac, guest)| {
            let Guest { ip, seen, rx, tx, .. } = *guest;
            Some(LanDevice { mac: *mac, ip, overlay: guest.overlay?, seen, rx, tx })
        })
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_mac.len()
    }

    pub(super) fn get_mut(&mut self, mac: Mac) -> Option<&mut Guest> {
        self.by_mac.get_mut(&mac)
    }

    pub(super) fn at_overlay(&self, overlay: Ipv4Addr) -> Option<Mac> {
        self.by_overlay.get(&overlay).copied()
    }

    pub(super) fn at_home(&self, ip: Ipv4Addr) -> Option<Mac> {
        self.by_mac.iter().find(|(_, guest)| guest.ip == ip).map(|(mac, _)| *mac)
    }

    /// Knows the device; false when there is no room.
    pub(super) fn learn(&mut self, mac: Mac, ip: Ipv4Addr, now: Instant) -> bool {
        for (_, other) in self.by_mac.iter_mut().filter(|(known, it)| **known != mac && it.ip == ip) {
            other.ip = Ipv4Addr::UNSPECIFIED; // it was its before
        }
        if let Some(guest) = self.by_mac.get_mut(&mac) {
            (guest.ip, guest.seen) = (ip, now);
            return true;
        }
        if self.by_mac.len() >= MAX_DEVICES {
            let idle = self.by_mac.iter().filter(|(_, guest)| guest.overlay.is_none());
            let Some(oldest) = idle.min_by_key(|(_, guest)| guest.seen).map(|(mac, _)| *mac) else {
                return false;
            };
            self.by_mac.remove(&oldest);
        }
        let guest = Guest {
            ip,
            overlay: None,
            asked: None,
            quiet: None,
            seen: now,
            pending: VecDeque::new(),
            rx: 0,
            tx: 0,
        };
        self.by_mac.insert(mac, guest);
        true
    }

    /// Where a device that is known stands; [`Standing::Wants`] once a minute at most.
    pub(super) fn standing(&mut self, mac: Mac, now: Instant) -> Standing {
        let Some(guest) = self.by_mac.get_mut(&mac) else { return Standing::Waits };
        match guest.overlay {
            Some(overlay) if guest.quiet.is_none() => Standing::Speaks(overlay),
            None if guest.asked.is_none_or(|asked| now >= asked + ASK_AGAIN) => {
                guest.asked = Some(now);
                Standing::Wants
            }
            _ => Standing::Waits,
        }
    }

    /// The answer to a question for an address. False when the device is not known any more.
    pub(super) fn handle_lease(&mut self, mac: Mac, overlay: Option<Ipv4Addr>, now: Instant) -> bool {
        let Some(guest) = self.by_mac.get_mut(&mac) else { return false };
        (guest.overlay, guest.quiet) = (overlay, Some(now + SPREAD));
        match overlay {
            Some(overlay) => _ = self.by_overlay.insert(overlay, mac),
            None => guest.pending.clear(),
        }
        true
    }

    /// Keeps a packet until the device speaks; false when there is no room.
    pub(super) fn keep(&mut self, mac: Mac, packet: &[u8]) -> bool {
        let Some(guest) = self.by_mac.get_mut(&mac).filter(|guest| guest.pending.len() < MAX_PENDING) else {
            return false;
        };
        guest.pending.push_back(packet.to_vec());
        true
    }

    /// Those whose addresses members know by now.
    pub(super) fn spread(&self, now: Instant) -> Vec<Mac> {
        let known = self.by_mac.iter().filter(|(_, guest)| guest.quiet.is_some_and(|until| now >= until));
        known.map(|(mac, _)| *mac).collect()
    }

    /// The device speaks from now on: its address, and what has waited.
    pub(super) fn release(&mut self, mac: Mac) -> Option<(Ipv4Addr, VecDeque<Vec<u8>>)> {
        let guest = self.by_mac.get_mut(&mac)?;
        guest.quiet = None;
        let pending = std::mem::take(&mut guest.pending);
        Some((guest.overlay?, pending))
    }

    /// Those that were silent for so long.
    pub(super) fn silent(&self, patience: Duration, now: Instant) -> Vec<Mac> {
        self.by_mac.iter().filter(|(_, guest)| now >= guest.seen + patience).map(|(mac, _)| *mac).collect()
    }

    /// Forgets the device; true when it had an address.
    pub(super) fn remove(&mut self, mac: Mac) -> bool {
        let overlay = self.by_mac.remove(&mac).and_then(|guest| guest.overlay);
        overlay.is_some_and(|overlay| self.by_overlay.remove(&overlay).is_some())
    }
}
