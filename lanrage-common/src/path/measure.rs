//! Finding out how long packets may be on the path in use, and telling it.

use super::Output;
use super::mtu;
use super::pair::{Active, Pair};
use super::probe::{Kind, MAX_LEN, Probe};
use super::shared::Shared;
use std::time::Instant;

impl Pair {
    /// When [`Pair::measure`] has something to do. What was found is verified only while somebody plays.
    pub fn measure_due(&self) -> Option<Instant> {
        let route = self.active.as_ref().and_then(|way| self.route(way)).filter(|route| !route.is_carried)?;
        if !route.was_answered() || self.is_idle(self.decided) && route.mtu.is_found() {
            return None;
        }
        route.mtu.due(route.round_trip())
    }

    /// Sends a padded probe by the path in use if one is due, and a short one with it: only where that is answered does
    /// silence tell something of length.
    pub fn measure(&mut self, shared: &mut Shared, now: Instant) {
        if self.measure_due().is_none_or(|due| due > now) {
            return;
        }
        let Some(way) = self.active.clone() else { return };
        let limit = longest(shared);
        let may_send = shared.budget.take(1, now);
        let Some(route) = self.route_mut(&way) else { return };
        if !may_send {
            return route.mtu.postpone(now);
        }
        let (answered, round_trip) = (route.answered_at(), route.round_trip());
        if let Some(length) = route.mtu.poll(limit, answered, round_trip, now) {
            self.send_padded(&way, length, shared, now);
        }
        self.tell_mtu(shared, now);
    }

    fn send_padded(&mut self, way: &Active, length: u16, shared: &mut Shared, now: Instant) {
        self.sequence += 1;
        let ping = Probe { sequence: self.sequence, ..self.probe(Kind::Ping) };
        let payload = self.seal_padded(&ping, mtu::payload(length), shared);
        let Some(route) = self.route_mut(way) else { return };
        route.mtu.sent(ping.sequence, length, now);
        shared.count("mtu_probe_sent");
        shared.outputs.push_back(Output::TransmitWhole { to: route.to, payload });
        self.ping(way, shared, now);
    }

    /// An answer came this way; true when it was to a padded probe.
    pub fn note_measured(&mut self, way: &Active, sequence: u64, shared: &mut Shared, now: Instant) -> bool {
        let limit = longest(shared);
        let Some(route) = self.route_mut(way) else { return false };
        if !route.mtu.answered(sequence, limit, now) {
            return false;
        }
        route.heard(now);
        shared.count("mtu_probe_answered");
        self.tell_mtu(shared, now);
        true
    }

    /// Begins to measure the path in use, and tells what is known of it. What is not known yet changes nothing.
    pub fn tell_mtu(&mut self, shared: &mut Shared, now: Instant) {
        let limit = longest(shared);
        let Some(route) = self.active.clone().and_then(|way| self.route_mut(&way)) else { return };
        let known = if route.is_carried { Some(limit) } else { route.mtu.longest() };
        route.mtu.begin(now);
        let Some(known) = known else { return };
        let mtu = Some(known).filter(|known| *known < limit);
        if mtu != self.told_mtu {
            self.told_mtu = mtu;
            shared.outputs.push_back(Output::Mtu { member: self.member, mtu });
        }
    }
}

/// The longest packet that is worth a probe.
fn longest(shared: &Shared) -> u16 {
    let most = (MAX_LEN - mtu::payload(0)) as u16;
    shared.config.mtu.min(most)
}
