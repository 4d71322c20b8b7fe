//! The party firewall in the peer: asked for each packet that a member sends, told what a person says, shown.

use super::event_loop::Peer;
use super::session::Session;
use super::status::problem;
use crate::config::PeerConfig;
use crate::platform::programs;
use lanrage_common::api::{FirewallRequest, FirewallStatus, Problem, RefusedPort};
use lanrage_common::firewall::{
    Choice, Firewall, MAX_WORDS, Owner, Policy, Port, PortRange, Refusal, Refused, Verdict, Word,
};
use lanrage_common::protocol::{ErrorBody, ErrorCode};
use std::net::Ipv4Addr;
use std::time::Instant;

/// Problems that are shown at once.
const MAX_PROBLEMS: usize = 4;

/// Whether a packet of `member` may go on to this machine.
pub(super) fn admits(firewall: &mut Firewall, packet: &[u8], member: Ipv4Addr, now: Instant) -> bool {
    let mut verdict = firewall.handle_inbound(packet, member, now);
    if let Verdict::Ask(question) = verdict {
        let owner = programs::owner(question.port, &firewall.players().collect());
        tracing::debug!(port = %question.port, %member, ?owner, "a member tries a port");
        verdict = firewall.handle_owner(question, owner, now);
    }
    verdict == Verdict::Pass
}

impl PeerConfig {
    /// What the configuration says.
    fn firewall_policy(&self) -> Policy {
        let allow = |ports: &PortRange| Word { ports: ports.clone(), choice: Choice::Allow };
        Policy { mode: Some(self.firewall), words: self.allow.iter().map(allow).collect() }
    }
}

impl Peer {
    /// What counts: what was said by command, after the configuration.
    pub(super) fn firewall_policy(&self) -> Policy {
        self.said.after(&self.config.firewall_policy())
    }

    /// Takes what a person says, for now and for later.
    pub(super) fn say(&mut self, request: FirewallRequest) -> Result<(), ErrorBody> {
        let base = self.config.firewall_policy();
        let mut said = self.said.clone();
        said.mode = request.mode.or(said.mode);
        if !request.words.into_iter().all(|word| said.say(word, &base)) {
            let message = format!(
                "there are {MAX_WORDS} words about ports already: take some back with `lanrage firewall auto udp/1-65535`"
            );
            return Err(ErrorBody { code: ErrorCode::BadRequest, message });
        }
        self.store
            .save_firewall(&said)
            .map_err(|error| ErrorBody { code: ErrorCode::Internal, message: format!("{error:#}") })?;
        self.said = said;
        let policy = self.firewall_policy();
        if let Some(session) = &mut self.session {
            session.firewall.set_policy(policy);
        }
        Ok(())
    }

    /// As `lanrage firewall` shows it.
    pub(super) fn firewall_status(&self, now: Instant) -> FirewallStatus {
        let policy = self.firewall_policy();
        let mut status = FirewallStatus {
            mode: policy.mode.unwrap_or_default(),
            words: policy.words,
            ..FirewallStatus::default()
        };
        if let Some(session) = &self.session {
            session.describe_firewall(&mut status, now);
        }
        status
    }
}

impl Session {
    fn describe_firewall(&self, status: &mut FirewallStatus, now: Instant) {
        let firewall = &self.firewall;
        let mut reached: Vec<Port> = firewall.reached(now).collect();
        reached.sort();
        status.reached = reached.into_iter().map(Into::into).collect();
        status.players = firewall.players().collect();
        status.games = firewall.games().to_vec();
        status.refused_total =
            firewall.counts().iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect();
        status.refused = firewall
            .refused()
            .map(|(address, port, refused)| RefusedPort {
                member: self.name_of(address),
                address,
                port: port.into(),
                packets: refused.packets,
                why: why(&refused),
                may_be_game: refused.why == Refusal::Owner(Owner::System),
            })
            .collect();
    }
}

fn why(refused: &Refused) -> String {
    match refused.why {
        Refusal::Denied => "closed by you".into(),
        Refusal::Service(name) => format!("{name}: no game"),
        Refusal::Owner(Owner::Nobody) => "nobody listens there".into(),
        Refusal::Owner(_) => "a program of the system listens there".into(),
        Refusal::TooMany => "too many ports were tried".into(),
        Refusal::Protocol | Refusal::Fragment | Refusal::Malformed => refused.why.reason().into(),
    }
}

/// Games that may have been refused: nobody else would tell why a friend cannot join.
pub(super) fn problems(status: &FirewallStatus) -> impl Iterator<Item = Problem> + '_ {
    let doubtful = status.refused.iter().filter(|refused| refused.may_be_game);
    doubtful.take(MAX_PROBLEMS).map(|refused| {
        let RefusedPort { member, address, port, packets, .. } = refused;
        let member = member.clone().unwrap_or_else(|| address.to_string());
        problem(
            "firewall_refused",
            format!(
                "the party firewall refused {packets} packets of {member} to {port}, where a program of the system listens"
            ),
            format!("if that is your game: `lanrage firewall allow {port}`; if not: `lanrage firewall deny {port}`"),
        )
    })
}
