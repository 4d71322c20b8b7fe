//! One sentence on why a member is reached as it is, and what would better it.

use super::candidate::CandidateKind;
use super::pair::{Active, Pair};
use super::route::Route;
use super::shared::Shared;
use crate::nat::{self, Verdict};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A death of a path is told for this long.
const RECENT: Duration = Duration::from_secs(60);

impl Pair {
    pub fn explain(&self, shared: &Shared) -> String {
        match &self.active {
            Some(Active::Direct(to)) => self.explain_direct(&Active::Direct(*to)),
            Some(way @ Active::Relay(name)) if self.route(way).is_some_and(|route| route.is_carried) => {
                format!(
                    "relayed by {name} over TLS, because UDP to it gets no answer here; let UDP out in this network's \
                     firewall, and it is used within seconds"
                )
            }
            Some(Active::Relay(name)) => {
                format!("relayed by {name}: {}", self.explain_not_direct(shared, self.decided))
            }
            None if shared.bindings.is_empty() => {
                format!(
                    "no path: no relay is reached now, and {}",
                    self.explain_not_direct(shared, self.decided)
                )
            }
            None => {
                format!(
                    "no path: the member is at none of this device's relays, and {}",
                    self.explain_not_direct(shared, self.decided)
                )
            }
        }
    }

    fn explain_direct(&self, way: &Active) -> String {
        let Some(route) = self.route(way) else { return "direct".into() };
        let how = match route.kind {
            CandidateKind::Host => "probe answered at its own address",
            CandidateKind::Mapped | CandidateKind::Predicted => "probe answered at",
            CandidateKind::Seen => "its probes come from, and ours are answered at,",
        };
        format!("direct: {how} {}", route.to)
    }

    fn explain_not_direct(&self, shared: &Shared, now: Instant) -> String {
        if self.remote.number == 0 {
            return "the member has not told its addresses yet".into();
        }
        if let Some((to, when)) =
            self.lapsed.filter(|(_, when)| now.saturating_duration_since(*when) < RECENT)
        {
            let ago = now.saturating_duration_since(when).as_secs();
            return format!("the direct path to {to} stopped answering {ago} s ago; probing for another");
        }
        if self.is_hunting()
            && let Some(hunt) = self.explain_hunt(now)
        {
            let expected = nat::explain(self.verdict(shared), "the member").why;
            return format!("{expected}: {hunt}");
        }
        if self.directs.is_empty() {
            return "the member has no address that could be probed".into();
        }
        if let Some(route) = self.directs.iter().find(|route| route.is_confirmed(now)) {
            return format!("the direct path to {} is no faster", route.to);
        }
        if !self.schedule.is_slow() {
            return match self.directs.len() {
                1 => "looking for a direct path, one address is being probed".into(),
                more => format!("looking for a direct path, {more} addresses are being probed"),
            };
        }
        self.explain_silence(shared, now)
    }

    /// Nobody answered: what is known of the routers in between, or else what the addresses tell of them.
    fn explain_silence(&self, shared: &Shared, now: Instant) -> String {
        match self.verdict(shared) {
            Verdict::Unknown => self.explain_by_addresses(shared),
            Verdict::Direct(how) => {
                let expected = nat::explain(Verdict::Direct(how), "the member").why;
                if let Some(hunt) = self.explain_hunt(now) {
                    return format!("{expected}, but {hunt}");
                }
                format!(
                    "no answer to direct probes yet, though {expected}; a firewall in between may drop them"
                )
            }
            verdict @ Verdict::Relayed { .. } => {
                let said = nat::explain(verdict, "the member");
                said.fix.into_iter().fold(said.why, |why, fix| format!("{why}; {fix}"))
            }
        }
    }

    fn explain_by_addresses(&self, shared: &Shared) -> String {
        let own_nat = shared
            .bindings
            .values()
            .filter_map(|binding| binding.mapped)
            .any(|mapped| !shared.local.contains(&mapped));
        let text = match (own_nat, self.remote.is_behind_nat) {
            _ if self.directs.iter().any(Route::was_answered) => {
                "direct probes are answered too rarely; it is tried again every minute"
            }
            (true, true) => {
                let port = shared.local.first().map_or(0, SocketAddr::port);
                return format!(
                    "no answer to direct probes yet; both routers probably change ports per destination \
                     (symmetric NAT); forwarding UDP port {port} to this device in its router would fix it"
                );
            }
            (false, true) => {
                "no answer to direct probes yet; a firewall in front of this device probably drops them; let UDP in"
            }
            (true, false) => {
                "no answer to direct probes yet; a firewall in front of the member probably drops them; let UDP in there"
            }
            (false, false) => "no answer to direct probes yet; a firewall between both probably drops them",
        };
        text.into()
    }
}
