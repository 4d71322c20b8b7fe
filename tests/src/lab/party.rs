//! Forming a party with the command line, and looking at it.

use super::process::wait_until;
use super::role::{Role, control_url, relay_address};
use super::running::Lab;
use super::site::Site;
use anyhow::{Context, Result, bail, ensure};
use lanrage_common::api::{InviteAnswer, MemberStatus, PathKind, RelayMode, Status};
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// How long members may take to reach each other.
const MEET: Duration = Duration::from_secs(30);

/// What `lab status --json` prints.
#[derive(Debug, Clone, Serialize)]
pub struct LabStatus {
    /// The relay.
    pub relay: RelaySummary,
    /// The control server.
    pub control: ControlSummary,
    /// In order of their numbers.
    pub peers: Vec<PeerSummary>,
}

/// The relay of a lab.
#[derive(Debug, Clone, Serialize)]
pub struct RelaySummary {
    /// Where it listens.
    pub addr: SocketAddr,
    /// How it forwards; `down` when it does not run.
    pub mode: String,
}

/// The control server of a lab.
#[derive(Debug, Clone, Serialize)]
pub struct ControlSummary {
    /// Its origin.
    pub url: String,
}

/// A peer of a lab.
#[derive(Debug, Clone, Serialize)]
pub struct PeerSummary {
    /// From 1.
    pub n: u8,
    /// For people.
    pub name: String,
    /// Its address in the party.
    pub overlay: Option<Ipv4Addr>,
    /// Its router, and what else is between it and the internet.
    pub nat: Site,
    /// The path to the others: `direct`, `relay`, `none`, or `mixed` when they differ.
    pub path: String,
    /// Path by name of the other, when they differ.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub paths: BTreeMap<String, PathKind>,
}

/// The word for a path.
pub fn path_word(path: PathKind) -> &'static str {
    match path {
        PathKind::Direct => "direct",
        PathKind::Relay => "relay",
        PathKind::Tls => "tls",
        PathKind::None => "none",
    }
}

/// The word for a relay mode.
pub fn mode_word(mode: RelayMode) -> &'static str {
    match mode {
        RelayMode::XdpNative => "xdp-native",
        RelayMode::XdpGeneric => "xdp-generic",
        RelayMode::Userspace => "userspace",
    }
}

impl Lab {
    /// Peer 1 founds a party, the others join by its invite.
    pub fn form_party(&mut self) -> Result<()> {
        self.lanrage_output(Role::Peer(1), &["party", "create", "Friday"])?;
        let others: Vec<Role> = self.peers()[1..].iter().map(|peer| Role::Peer(peer.n)).collect();
        if !others.is_empty() {
            let link = self.invite(Role::Peer(1), &[])?;
            for role in others {
                self.lanrage_output(role, &["party", "join", &link])?;
            }
        }
        self.note_addresses()
    }

    /// A fresh invite link.
    pub fn invite(&self, role: Role, arguments: &[&str]) -> Result<String> {
        let text = self.lanrage_output(role, &[&["invite", "--json"], arguments].concat())?;
        let invite: InviteAnswer = serde_json::from_str(&text).with_context(|| format!("invite: {text}"))?;
        Ok(invite.link)
    }

    /// Waits until every two peers that can reach each other do.
    pub fn wait_for_paths(&self) -> Result<()> {
        let met = wait_until(MEET, || self.peers().iter().all(|peer| self.has_all_paths(peer.n)));
        ensure!(
            met,
            "not everybody can reach everybody after {} s:\n{}",
            MEET.as_secs(),
            self.explain_paths()
        );
        Ok(())
    }

    /// Waits until both peers use this kind of path to each other.
    pub fn wait_for_path(&self, pair: (u8, u8), path: PathKind, patience: Duration) -> Result<()> {
        let uses = |from, to| self.path(from, to).is_ok_and(|now| now == path);
        let (a, b) = pair;
        let good = wait_until(patience, || uses(a, b) && uses(b, a));
        ensure!(
            good,
            "peers {a} and {b} do not talk by {path:?} after {} s:\n{}",
            patience.as_secs(),
            self.explain_paths()
        );
        Ok(())
    }

    /// The path by which peer `from` reaches peer `to`.
    pub fn path(&self, from: u8, to: u8) -> Result<PathKind> {
        Ok(self.member(from, to)?.path)
    }

    /// Peer `to` as peer `from` sees it.
    pub fn member(&self, from: u8, to: u8) -> Result<MemberStatus> {
        let name = &self.peers()[usize::from(to - 1)].name;
        let members =
            self.daemon_status(Role::Peer(from))?.party.map(|party| party.members).unwrap_or_default();
        let member = members.into_iter().find(|member| member.name == *name);
        member.with_context(|| format!("peer {from} does not know {name}"))
    }

    /// A peer's address in the party.
    pub fn overlay(&self, n: u8) -> Result<Ipv4Addr> {
        self.peers()[usize::from(n - 1)].overlay.with_context(|| format!("peer {n} is in no party"))
    }

    /// Everything that `lab status` shows.
    pub fn status(&self) -> LabStatus {
        let relay = self.daemon_status(Role::Relay).ok().and_then(|status| status.relay);
        let mode = relay.map_or("down", |relay| mode_word(relay.mode)).into();
        LabStatus {
            relay: RelaySummary { addr: relay_address(), mode },
            control: ControlSummary { url: control_url() },
            peers: self.peers().iter().map(|peer| self.summary(peer.n)).collect(),
        }
    }

    fn summary(&self, n: u8) -> PeerSummary {
        let peer = &self.peers()[usize::from(n - 1)];
        let paths = self.daemon_status(Role::Peer(n)).map(|status| paths(&status)).unwrap_or_default();
        let mut kinds: Vec<PathKind> = paths.values().copied().collect();
        kinds.dedup();
        let (path, paths) = match kinds[..] {
            [] => ("none", BTreeMap::new()),
            [one] => (path_word(one), BTreeMap::new()),
            _ => ("mixed", paths),
        };
        PeerSummary {
            n,
            name: peer.name.clone(),
            overlay: peer.overlay,
            nat: peer.site,
            path: path.into(),
            paths,
        }
    }

    fn has_all_paths(&self, n: u8) -> bool {
        let others = self.peers().iter().filter(|other| other.n != n);
        let Ok(status) = self.daemon_status(Role::Peer(n)) else { return false };
        let paths = paths(&status);
        let reaches = |name: &String| paths.get(name).is_some_and(|path| *path != PathKind::None);
        others.map(|other| &other.name).all(reaches)
    }

    /// Who reaches whom how, and what the daemons say about it.
    pub fn explain_paths(&self) -> String {
        self.peers().iter().map(|peer| self.explain_paths_of(peer.n)).collect()
    }

    fn explain_paths_of(&self, n: u8) -> String {
        let status = match self.daemon_status(Role::Peer(n)) {
            Ok(status) => status,
            Err(error) => return format!("    peer {n}: {error:#}\n"),
        };
        let members =
            status.party.into_iter().flat_map(|party| party.members).filter(|member| !member.is_self);
        let paths = members.map(|member| {
            format!("    peer {n} → {}: {} ({})\n", member.name, path_word(member.path), member.why)
        });
        let problems = status.problems.iter().map(|problem| format!("    peer {n}: {}\n", problem.message));
        paths.chain(problems).collect()
    }

    fn note_addresses(&mut self) -> Result<()> {
        for n in self.peers().iter().map(|peer| peer.n).collect::<Vec<_>>() {
            let status = self.daemon_status(Role::Peer(n))?;
            let Some(party) = status.party else { bail!("peer {n} is in no party although it joined") };
            self.set_overlay(n, party.address)?;
        }
        Ok(())
    }
}

fn paths(status: &Status) -> BTreeMap<String, PathKind> {
    let members = status.party.iter().flat_map(|party| &party.members).filter(|member| !member.is_self);
    members.map(|member| (member.name.clone(), member.path)).collect()
}
