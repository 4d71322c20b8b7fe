//! Bulletins at work: this device tells how it reaches the others and which game servers run on it, and shows what it is told.

use super::commands::Event;
use super::event_loop::Peer;
use super::ping::Plan;
use super::session::Session;
use super::wire::{Io, Sender};
use crate::clock::now;
use crate::games::Games;
use crate::servers;
use lanrage_common::api::{GameServer, MatrixStatus, PathKind, PingAnswer};
use lanrage_common::bulletin::{Announced, Link, hosts};
use lanrage_common::protocol::ErrorBody;
use lanrage_common::time::Now;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

/// Between two looks at the paths.
const INTERVAL: Duration = Duration::from_secs(1);
/// Between two searches for servers on this machine.
const SEARCH: Duration = Duration::from_secs(5);
/// Between two echoes to a member that runs servers.
const ECHO: Duration = Duration::from_secs(5);
/// Echoes that count.
const ECHOES: usize = 5;

/// Round trips through the tunnel to members that run servers.
#[derive(Debug, Default)]
pub struct HostPings {
    due: Option<Instant>,
    running: BTreeMap<Ipv4Addr, oneshot::Receiver<Result<PingAnswer, ErrorBody>>>,
    /// The last round trips, the oldest first, milliseconds.
    rtts: BTreeMap<Ipv4Addr, VecDeque<f64>>,
}

impl HostPings {
    /// Takes the answers that are there, and says who is to be asked now.
    fn follow(&mut self, hosts: &BTreeSet<Ipv4Addr>, now: Instant) -> Vec<Ipv4Addr> {
        self.running.retain(|host, _| hosts.contains(host));
        self.rtts.retain(|host, _| hosts.contains(host));
        let rtts = &mut self.rtts;
        self.running.retain(|host, answer| match answer.try_recv() {
            Err(TryRecvError::Empty) => true,
            Err(TryRecvError::Closed) => false,
            Ok(answer) => {
                note(rtts.entry(*host).or_default(), answer.ok());
                false
            }
        });
        if self.due.is_some_and(|due| now < due) {
            return Vec::new();
        }
        self.due = Some(now + ECHO);
        hosts.iter().filter(|host| !self.running.contains_key(host)).copied().collect()
    }

    fn rtt_ms(&self, host: Ipv4Addr) -> Option<f64> {
        let mut sorted: Vec<f64> = self.rtts.get(&host)?.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied()
    }
}

/// An echo that did not come back takes an old round trip with it, so that a dead host's is not shown for ever.
fn note(rtts: &mut VecDeque<f64>, answer: Option<PingAnswer>) {
    let rtt = answer.and_then(|answer| answer.replies.first()?.rtt_ms);
    if rtt.is_none() || rtts.len() == ECHOES {
        rtts.pop_front();
    }
    rtts.extend(rtt);
}

impl Peer {
    /// Tells what there is to tell.
    pub(super) fn follow_bulletins(&mut self, now: Now) {
        self.bulletins_due = now.instant + INTERVAL;
        let io = Io { socket: &self.sends, interface: self.interface.as_ref() };
        let Some(session) = &mut self.session else { return };
        session.follow_bulletins(now);
        session.settle(io, now);
        session.tell_late(io, now);
        if self.interface.is_some() && self.servers_due.is_some_and(|due| now.instant >= due) {
            self.servers_due = None;
            let (events, queries, me) =
                (self.events.clone(), self.games.queries(), session.party.own().address);
            tokio::spawn(async move {
                let _ = events.send(Event::Servers(servers::search(queries, me).await));
            });
        }
    }

    /// What the search has found.
    pub(super) fn tell_servers(&mut self, found: Vec<Announced>) {
        let now = now().instant;
        self.servers_due = Some(now + SEARCH);
        if let Some(session) = &mut self.session {
            session.board.handle_servers(found, now);
        }
    }
}

impl Session {
    fn follow_bulletins(&mut self, now: Now) {
        let links = self.measured_links();
        self.board.handle_links(links, now.instant);
        self.board.handle_timeout(now.instant);
        let own = self.party.own().address;
        self.heard.handle_timeout(now.instant);
        let mut hosts: BTreeSet<Ipv4Addr> = self.known_servers().map(|(host, _)| host).collect();
        hosts.retain(|host| *host != own && self.reaches(*host));
        for address in self.host_pings.follow(&hosts, now.instant) {
            let (reply, answer) = oneshot::channel();
            let plan = Plan {
                member: String::new(),
                address,
                count: 1,
                mtu: None,
                outside_rtt_ms: None,
                path_mtu: None,
            };
            self.pings.start(plan, reply, now.instant);
            self.host_pings.running.insert(address, answer);
        }
    }

    /// What is joined on this machine. Devices behind it may have joined anything.
    pub(super) fn tell_joined(&mut self, groups: Option<BTreeSet<IpAddr>>, io: Io<'_>, now: Now) {
        let is_alone = !self.gateway.has_lan() && self.gateway.registry().devices().is_empty();
        if self.board.handle_groups(groups.filter(|_| is_alone), now.instant) {
            self.board.handle_timeout(now.instant);
            self.settle(io, now);
        }
    }

    /// Tells the lane what members have joined.
    pub(super) fn follow_joined(&mut self) {
        if self.joined_version != self.board.groups_version() {
            self.joined_version = self.board.groups_version();
            self.lane.set_joined(self.board.joined());
        }
    }

    /// Says once more what programs here repeat, to members that have come late.
    fn tell_late(&mut self, io: Io<'_>, now: Now) {
        let joined: BTreeMap<_, _> = self.board.joined().collect();
        let members = self.party.members().map(|member| member.address);
        let reachable = members.filter(|member| self.reaches(*member));
        let late = reachable.map(|member| (member, joined.get(&member).copied()));
        self.repeats.handle_members(late.collect::<Vec<_>>(), now.instant);
        let mut sender = Sender::new(io.socket);
        while let Some((member, packet)) = self.repeats.poll_output() {
            if let Some(copy) = self.lane.repeat(&packet, member) {
                self.tunnel.send(copy, now.instant, &mut sender);
            }
        }
        self.note_failure(sender.failed, now);
    }

    fn measured_links(&self) -> Vec<Link> {
        let measure = |entry: &lanrage_common::identity::RosterEntry| {
            let status = self.paths.status(&entry.wg);
            let (path, rtt_ms, jitter_ms, loss) = status
                .map_or((PathKind::None, None, None, None), |it| (it.kind, it.rtt_ms, it.jitter_ms, it.loss));
            Link { to: entry.address, path, rtt_ms, jitter_ms, loss }
        };
        self.party.members().map(measure).collect()
    }

    fn reaches(&self, address: Ipv4Addr) -> bool {
        let mut members = self.party.members().filter(|member| {
            member.address == address || self.devices_behind(member).any(|device| device.address == address)
        });
        members.any(|it| self.paths.status(&it.wg).is_some_and(|path| path.kind != PathKind::None))
    }

    /// How members reach each other; `name` is this device's.
    pub(super) fn matrix(&self, name: &str) -> MatrixStatus {
        let there = self.party.members().filter(|member| self.reaches(member.address));
        let mut members = vec![(self.party.own().address, name.to_owned())];
        members.extend(there.map(|member| (member.address, member.name.clone())));
        let is_there = |address| members.iter().any(|(member, _)| *member == address);
        let links: Vec<_> =
            self.board.links().filter(|(from, link)| is_there(*from) && is_there(link.to)).collect();
        hosts::matrix(&links, &members)
    }

    /// Servers that members have found on themselves, and hosts that announce themselves; who answers questions knows more.
    fn known_servers(&self) -> impl Iterator<Item = (Ipv4Addr, &Announced)> {
        let is_asked = |(host, heard): &(Ipv4Addr, &Announced)| {
            let is_same = |it: &Announced| (it.port, it.is_tcp) == (heard.port, heard.is_tcp);
            self.board.servers().any(|(asked, it)| asked == *host && is_same(it))
        };
        self.board.servers().chain(self.heard.servers().filter(move |heard| !is_asked(heard)))
    }

    /// Game servers at this device and at members that it reaches; `name` is this device's.
    pub(super) fn game_servers(&self, name: &str, games: &Games) -> Vec<GameServer> {
        let own = self.party.own().address;
        let host = |address| self.name_of(address).unwrap_or_else(|| name.to_owned());
        let describe = |(member, server): (Ipv4Addr, &Announced)| GameServer {
            member,
            host: host(member),
            own: member == own,
            game: server.game.clone(),
            title: games.name(&server.game).unwrap_or(&server.game).to_owned(),
            name: if server.name.is_empty() { host(member) } else { server.name.clone() },
            map: Some(server.map.clone()).filter(|map| !map.is_empty()),
            players: server.players,
            max_players: server.max_players,
            password: server.is_locked,
            protocol: if server.is_tcp { "tcp" } else { "udp" }.into(),
            address: SocketAddrV4::new(member, server.port),
            rtt_ms: self.host_pings.rtt_ms(member),
        };
        let shown = self
            .known_servers()
            .filter(|(host, _)| *host == own || self.gateway.has(*host) || self.reaches(*host));
        shown.map(describe).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lanrage_common::api::PingReply;

    const BEN: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 2);

    fn answer(rtt_ms: Option<f64>) -> PingAnswer {
        let replies = vec![PingReply { rtt_ms, path: PathKind::Direct }];
        PingAnswer {
            member: String::new(),
            address: BEN,
            replies,
            outside_rtt_ms: None,
            mtu: None,
            path_mtu: None,
        }
    }

    #[test]
    fn hosts_are_asked_now_and_then_and_silence_is_noticed() {
        let (mut pings, mut now) = (HostPings::default(), Instant::now());
        let hosts = BTreeSet::from([BEN]);
        for rtt in [Some(20.0), Some(90.0), Some(22.0)] {
            assert_eq!(pings.follow(&hosts, now), [BEN]);
            let (reply, running) = oneshot::channel();
            pings.running.insert(BEN, running);
            assert!(pings.follow(&hosts, now + ECHO / 2).is_empty(), "one at a time");
            reply.send(Ok(answer(rtt))).unwrap();
            now += ECHO;
        }
        pings.follow(&hosts, now);
        assert_eq!(pings.rtt_ms(BEN), Some(22.0));
        for _ in 0..3 {
            note(pings.rtts.get_mut(&BEN).unwrap(), Some(answer(None)));
        }
        assert_eq!(pings.rtt_ms(BEN), None);
        pings.follow(&BTreeSet::new(), now);
        assert!(pings.rtts.is_empty());
    }
}
