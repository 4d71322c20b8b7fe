//! What the peer tells about itself.

use super::PeerStatus;
use super::event_loop::Peer;
use super::firewall;
use super::relays::Trouble;
use super::session::Session;
use super::store::StoredParty;
use crate::carrier::Figures;
use lanrage_common::api::{
    CarrierStatus, ControlStatus, DeviceStatus, FirewallStatus, GamesStatus, LaneStatus, MemberStatus,
    PartyStatus, PathKind, Problem, RelayChoiceStatus,
};
use lanrage_common::identity::{Device, RosterEntry};
use lanrage_common::nat::{self, Fix, Verdict};
use lanrage_common::protocol::Member;
use lanrage_common::relays;
use lanrage_common::score::quality;
use std::collections::BTreeMap;
use std::time::Instant;

/// A problem with its cure.
pub(super) fn problem(code: &str, message: impl Into<String>, fix: impl Into<String>) -> Problem {
    Problem { code: code.into(), message: message.into(), fix: fix.into() }
}

/// Before there is anything to tell.
pub(super) fn empty(device: &Device, name: &str) -> PeerStatus {
    let key = device.key();
    PeerStatus {
        up: false,
        device: DeviceStatus { name: name.into(), key, fingerprint: key.fingerprint() },
        party: None,
        control: None,
        network: None,
        gateway: None,
        firewall: FirewallStatus::default(),
        games: GamesStatus::default(),
        problems: Vec::new(),
    }
}

impl Peer {
    /// Everything, as it is now.
    pub(super) fn status(&self, now: Instant) -> PeerStatus {
        let mut status = empty(&self.device, &self.name);
        status.firewall = self.firewall_status(now);
        status.games = self.games_status();
        status.problems = self.problems(now);
        status.problems.extend(firewall::problems(&status.firewall));
        let Some(stored) = &self.stored else { return status };
        status.up = stored.up;
        let connected = self.session.as_ref().is_some_and(|session| session.health.down_since.is_none());
        status.control = Some(ControlStatus { url: stored.control.clone(), connected });
        status.gateway = self.session.as_ref().and_then(|session| session.gateway.status(now));
        status.network = self.session.as_ref().map(|session| session.nat.status());
        status.party = Some(self.party_status(stored, now));
        status
    }

    fn party_status(&self, stored: &StoredParty, now: Instant) -> PartyStatus {
        let membership = &stored.state.membership;
        let party = &membership.party;
        let host = |entry: &RosterEntry| entry.device == party.host;
        let mut members = vec![self.own_status(stored)];
        match &self.session {
            Some(session) => members
                .extend(session.party.members().map(|entry| session.member_status(entry, host(entry), now))),
            None => members.extend(
                stored
                    .state
                    .members
                    .iter()
                    .map(|Member { entry, .. }| asleep(entry, host(entry), "the tunnel is down")),
            ),
        }
        members[1..].sort_by_key(|member| member.address);
        PartyStatus {
            id: party.id,
            name: party.name.clone(),
            subnet: party.subnet,
            address: membership.address,
            interface: self.interface.as_ref().map(|interface| interface.name().to_owned()),
            mtu: self.config.mtu,
            host: party.host == self.device.key(),
            relays: self.session.as_ref().map_or_else(Vec::new, |session| session.relay_choices(&members)),
            members,
            lane: self.lane_status(),
            carriers: self.session.as_ref().map(Session::carrier_status).unwrap_or_default(),
            path_events: self.session.as_ref().map(Session::path_events).unwrap_or_default(),
            matrix: self.session.as_ref().map(|session| session.matrix(&self.name)).unwrap_or_default(),
            servers: self
                .session
                .as_ref()
                .map_or_else(Vec::new, |session| session.game_servers(&self.name, &self.games)),
        }
    }

    fn lane_status(&self) -> LaneStatus {
        let mut status =
            self.session.as_ref().map_or_else(LaneStatus::default, |session| session.lane.status());
        status.trace = self
            .session
            .as_ref()
            .map(|session| session.conversations(&self.name, &self.games))
            .unwrap_or_default();
        status.joined = self
            .session
            .as_ref()
            .map(|session| session.board.joined().map(|(member, groups)| (member, groups.clone())).collect())
            .unwrap_or_default();
        status.home_copied = self.session.as_ref().map_or(0, |session| session.home_copies.sent);
        if let Some(lane) = &self.lane {
            lane.describe(&mut status);
        }
        status
    }

    fn own_status(&self, stored: &StoredParty) -> MemberStatus {
        let membership = &stored.state.membership;
        let online = self.session.as_ref().is_some_and(|session| session.health.down_since.is_none());
        MemberStatus {
            name: self.name.clone(),
            device: self.device.key(),
            wg: self.device.wg_key(),
            address: membership.address,
            is_self: true,
            host: membership.party.host == self.device.key(),
            online,
            path: PathKind::None,
            endpoint: None,
            relay: None,
            standby: None,
            relay_why: None,
            why: "this device".into(),
            plays: self.games_status().running.into_iter().map(|game| game.name).collect(),
            verdict: None,
            fix: None,
            rtt_ms: None,
            jitter_ms: None,
            loss: None,
            quality: None,
            mtu: None,
            handshake_age_s: None,
            rx_bytes: 0,
            tx_bytes: 0,
            devices: self
                .session
                .as_ref()
                .map_or_else(Vec::new, |session| session.party.devices_of(&self.device.key()).to_vec()),
        }
    }

    fn problems(&self, now: Instant) -> Vec<Problem> {
        let mut problems: Vec<_> = self.interface_problem.iter().cloned().collect();
        if let Some(session) = &self.session {
            problems.extend(session.relays.trouble(now).map(relay_problem));
            problems.extend(session.control_problem(now));
            problems.extend(session.gateway_problems());
            problems.extend(session.problems.values().cloned());
        }
        problems.extend(self.store_problem.clone());
        problems
    }
}

impl Session {
    fn member_status(&self, entry: &RosterEntry, host: bool, now: Instant) -> MemberStatus {
        let mut status = asleep(entry, host, "looking for a path");
        status.online = self.party.is_online(&entry.device);
        status.devices = self.party.devices_of(&entry.device).to_vec();
        status.plays = self.board.games_of(entry.address).to_vec();
        if let Some(path) = self.paths.status(&entry.wg) {
            status.online |= path.answers && self.health.is_settling(now);
            status.path = path.kind;
            status.endpoint = path.endpoint;
            (status.relay, status.standby, status.relay_why) = (path.relay, path.standby, path.relay_why);
            if let (PathKind::Tls, Some(name)) = (path.kind, &status.relay) {
                status.endpoint = self.relays.tls_address(name);
            }
            (status.rtt_ms, status.jitter_ms, status.loss) = (path.rtt_ms, path.jitter_ms, path.loss);
            status.quality = quality(path.kind, path.rtt_ms, path.jitter_ms, path.loss);
            status.mtu = path.mtu;
            status.why = path.why;
            status.explain(path.verdict, path.fix);
        }
        if let Some(tunnel) = self.tunnel.stats(&entry.wg) {
            status.handshake_age_s = tunnel.handshake_age.map(|age| age.as_secs());
            (status.rx_bytes, status.tx_bytes) = (tunnel.rx_bytes, tunnel.tx_bytes);
        }
        status
    }

    fn path_events(&self) -> BTreeMap<String, u64> {
        self.paths.counters().iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    fn carrier_status(&self) -> Vec<CarrierStatus> {
        let describe = |(address, figures): (_, Figures)| {
            let Figures { received, sent, dropped } = figures;
            CarrierStatus { address, received, sent, dropped }
        };
        self.carriers.figures().map(describe).collect()
    }

    fn relay_choices(&self, members: &[MemberStatus]) -> Vec<RelayChoiceStatus> {
        let count = |uses: &dyn Fn(&MemberStatus) -> bool| {
            u32::try_from(members.iter().filter(|member| uses(member)).count()).unwrap_or(u32::MAX)
        };
        let describe = |relay: relays::Status| RelayChoiceStatus {
            members: count(&|member| member.relay.as_ref() == Some(&relay.info.name)),
            standby_for: count(&|member| member.standby.as_ref() == Some(&relay.info.name)),
            name: relay.info.name,
            region: relay.info.region,
            addresses: relay.info.addresses,
            state: relay.info.state,
            load: relay.info.load,
            held: relay.is_held,
            rtt_ms: relay.rtt_ms,
            jitter_ms: relay.jitter_ms,
            loss: relay.loss,
            why: relay.why.into(),
        };
        self.choice.status().map(describe).collect()
    }

    fn control_problem(&self, now: Instant) -> Option<Problem> {
        self.health.is_lasting(now).then(|| {
            problem(
                "control_unreachable",
                format!("no connection to the control server: {}", self.health.reason),
                "check that it runs and that this machine reaches it; until then the party goes on with the members known so far",
            )
        })
    }
}

/// What the NATs make of a pair that is not direct.
trait Explain {
    fn explain(&mut self, verdict: Verdict, fix_after_hunt: Option<Fix>);
}

impl Explain for MemberStatus {
    fn explain(&mut self, verdict: Verdict, fix_after_hunt: Option<Fix>) {
        self.verdict = Some(verdict);
        if self.path == PathKind::Direct {
            return;
        }
        let said = nat::explain(verdict, &self.name);
        if let (PathKind::Relay, Some(relay), Some(_)) = (self.path, &self.relay, &said.fix) {
            self.why = format!("relayed by {relay}: {}", said.why);
        }
        self.fix = said.fix.or(fix_after_hunt.map(|fix| nat::advise(fix, &self.name)));
    }
}

fn asleep(entry: &RosterEntry, host: bool, why: &str) -> MemberStatus {
    MemberStatus {
        name: entry.name.clone(),
        device: entry.device,
        wg: entry.wg,
        address: entry.address,
        is_self: false,
        host,
        online: false,
        path: PathKind::None,
        endpoint: None,
        relay: None,
        standby: None,
        relay_why: None,
        why: why.into(),
        plays: Vec::new(),
        verdict: None,
        fix: None,
        rtt_ms: None,
        jitter_ms: None,
        loss: None,
        quality: None,
        mtu: None,
        handshake_age_s: None,
        rx_bytes: 0,
        tx_bytes: 0,
        devices: Vec::new(),
    }
}

fn relay_problem(trouble: Trouble) -> Problem {
    match trouble {
        Trouble::NoRelay => problem(
            "no_relay",
            "the control server knows no relay: members behind difficult routers cannot be reached",
            "if one was there, whoever runs it must start it again; or start one: `lanrage-daemon relay`, with the control server's address and token",
        ),
        Trouble::Carried { relays } => problem(
            "udp_blocked",
            format!(
                "UDP is blocked: no answer from {relays}. You play over TLS, which stutters when packets are lost"
            ),
            "allow outgoing UDP to that address in this network's firewall, or use another network; UDP is used again as soon as it works",
        ),
        Trouble::Certificate { cause } => problem(
            "relay_certificate_wrong",
            format!("UDP is blocked, and TLS does not lead to the relay. {cause}"),
            "something in this network looks into TLS connections: allow UDP to the relay there, or use another network; if all members see this, restart the relay's daemon, which tells its certificate anew",
        ),
        Trouble::Silent { relays } => problem(
            "relay_silent",
            format!("no relay answers: {relays}"),
            "if the others see this too, the relay is down: whoever runs it must start it, or start another one: `lanrage-daemon relay`. If not, this network blocks it: allow outgoing UDP to that address in its firewall, or use another network",
        ),
        Trouble::Refused { cause } => problem(
            "relay_refused",
            format!("no relay accepts this device: {cause}"),
            "it is tried again by itself; if it stays, check that the clocks of relay and control server are right",
        ),
    }
}
