//! One round: all games at once, from their searches to the connections between those who found each other.

mod connect;

use super::side::{Arrival, PATIENCE, Side};
use super::{Faults, Game};
use crate::lab::process::wait_until;
use crate::lab::role::Role;
use crate::lab::running::Lab;
use anyhow::{Context, Result, ensure};
use connect::talk;
use lanrage_daemon::games::{Discovery, GamePorts, Profile, Protocol, Reply, Sender};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::Command;
use std::time::Duration;

/// After this, what has not come does not come.
const SILENCE: Duration = Duration::from_millis(600);
/// The party's, with the lab's subnet.
const PARTY_BROADCAST: Ipv4Addr = Ipv4Addr::new(10, 66, 255, 255);
/// What Linux gives unicast and broadcast.
const TTL: u8 = 64;

/// Who plays which part: peer 1 is the client, peer 2 the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Client,
    Host,
}

impl Part {
    const fn other(self) -> Self {
        match self {
            Self::Client => Self::Host,
            Self::Host => Self::Client,
        }
    }
}

/// All games' sockets, and who is who.
#[derive(Debug)]
pub struct Round<'a> {
    games: &'a [Game],
    client: Side,
    host: Side,
    /// By game: the port that its packets to everybody come from.
    sources: BTreeMap<&'a str, u16>,
    addresses: [Ipv4Addr; 2],
}

impl<'a> Round<'a> {
    /// Opens every socket that these games have open while they look for each other and play.
    pub fn open(lab: &Lab, games: &'a [Game]) -> Result<Self> {
        let side = |n| Side::new(lab.namespace(Role::Peer(n)));
        let mut round = Self {
            games,
            client: side(1),
            host: side(2),
            sources: BTreeMap::new(),
            addresses: [Ipv4Addr::UNSPECIFIED; 2],
        };
        for (id, profile) in games {
            round.open_game(id, profile).with_context(|| format!("opening the sockets of {id}"))?;
        }
        Ok(round)
    }

    fn open_game(&mut self, id: &'a str, profile: &Profile) -> Result<()> {
        for GamePorts { protocol, ports } in &profile.ports {
            match protocol {
                Protocol::Udp => self.host.open_udp(*ports.0.start())?,
                Protocol::Tcp => self.host.open_tcp(*ports.0.start())?,
            };
        }
        let Some(discovery) = &profile.discovery else { return Ok(()) };
        let (sender, receiver) = self.sides(discovery);
        let source = sender.open_udp(discovery.source_port.unwrap_or(0))?;
        match (discovery.reply, discovery.reply_port) {
            (Reply::Tcp, Some(port)) => sender.open_tcp(port).map(drop)?,
            (Reply::Unicast, Some(port)) => sender.open_udp(port).map(drop)?,
            (Reply::Group, _) => {
                let port = sender.open_udp(group_reply_port(discovery))?;
                groups(discovery).try_for_each(|group| sender.join(port, group))?;
            }
            (Reply::Unicast | Reply::Tcp | Reply::Join, _) => {}
        }
        for port in discovery.port_list() {
            receiver.open_udp(port)?;
            groups(discovery).try_for_each(|group| receiver.join(port, group))?;
        }
        self.sources.insert(id, source);
        Ok(())
    }

    /// Plays all games. Peers are in a party now.
    pub fn play(&mut self, lab: &Lab, faults: &mut Faults, when: &str) -> Result<()> {
        self.addresses = [lab.overlay(1)?, lab.overlay(2)?];
        self.wait_for_groups(lab)?;
        let mut found = Faults::new();
        self.search(&mut found)?;
        self.answer(&mut found)?;
        for (id, profile) in self.games {
            if !found.contains_key(id)
                && let Err(error) = self.connect(id, profile)
            {
                found.insert(id.clone(), format!("{error:#}"));
            }
        }
        for (id, why) in found {
            faults.entry(id).or_insert_with(|| format!("sockets {when}: {why}"));
        }
        Ok(())
    }

    /// Games that joined elsewhere wait a moment for the daemon to notice. What it does not notice fails later.
    fn wait_for_groups(&self, lab: &Lab) -> Result<()> {
        for (n, part) in [(1, Part::Client), (2, Part::Host)] {
            let place = lab.namespace(Role::Peer(n));
            let mut wanted: BTreeSet<Ipv4Addr> = BTreeSet::new();
            for discovery in self.games.iter().filter_map(|(_, game)| game.discovery.as_ref()) {
                if receiver(discovery) == part || discovery.reply == Reply::Group {
                    wanted.extend(groups(discovery));
                }
            }
            let has_all = || {
                let table = place.output(Command::new("ip").args(["maddr", "show", "dev", "lanrage0"]));
                table.is_ok_and(|table| wanted.iter().all(|group| table.contains(&group.to_string())))
            };
            wait_until(PATIENCE, has_all);
        }
        Ok(())
    }

    /// Packets to everybody, and what came of them.
    fn search(&mut self, faults: &mut Faults) -> Result<()> {
        let mut wanted = Vec::new();
        for (id, profile) in self.games {
            let Some(discovery) = &profile.discovery else { continue };
            match self.send_search(id, discovery) {
                Ok(()) => wanted.push((id, discovery)),
                Err(error) => drop(faults.insert(id.clone(), format!("{error:#}"))),
            }
        }
        for part in [Part::Client, Part::Host] {
            let of_part = wanted.iter().filter(|(_, discovery)| receiver(discovery) == part);
            let expected: Vec<(Vec<u8>, usize)> =
                of_part.map(|(id, discovery)| (payload(id, discovery), packets(discovery))).collect();
            let count = |log: &[Arrival], bytes: &[u8]| log.iter().filter(|it| it.bytes == bytes).count();
            let all = |log: &[Arrival]| expected.iter().all(|(bytes, wanted)| count(log, bytes) >= *wanted);
            self.side_mut(part).wait(all)?;
        }
        self.host.listen(SILENCE)?;
        self.client.listen(Duration::ZERO)?;
        for (id, discovery) in wanted {
            if let Err(error) = self.check_search(id, discovery) {
                faults.insert(id.clone(), format!("{error:#}"));
            }
        }
        Ok(())
    }

    fn send_search(&self, id: &str, discovery: &Discovery) -> Result<()> {
        let (bytes, source) = (payload(id, discovery), self.sources[id]);
        let sender = self.side(receiver(discovery).other());
        for target in &discovery.to {
            for port in discovery.port_list() {
                let to = SocketAddrV4::new(target.address(PARTY_BROADCAST), port);
                for _ in 0..discovery.repeat {
                    sender.send(source, &bytes, to, ttl(discovery, *to.ip()))?;
                }
            }
        }
        std::thread::sleep(Duration::from_millis(2)); // as separate games would, not all within a moment
        Ok(())
    }

    fn check_search(&self, id: &str, discovery: &Discovery) -> Result<()> {
        let bytes = payload(id, discovery);
        let part = receiver(discovery);
        let from = SocketAddrV4::new(self.address(part.other()), self.sources[id]);
        let log = self.side(part).log();
        for port in discovery.port_list() {
            for target in &discovery.to {
                let to = target.address(PARTY_BROADCAST);
                let came: Vec<&Arrival> = log
                    .iter()
                    .filter(|arrival| arrival.port == port && arrival.to == to && arrival.bytes == bytes)
                    .filter(|arrival| *arrival.from.ip() != self.address(part))
                    .collect();
                let (sent, came_in) = (usize::from(discovery.repeat), came.len());
                ensure!(came_in == sent, "{came_in} packets instead of {sent} arrived for {to}:{port}");
                for arrival in came {
                    ensure!(arrival.from == from, "it arrived from {} instead of {from}", arrival.from);
                    let wanted = ttl(discovery, to);
                    ensure!(
                        arrival.ttl == i32::from(wanted),
                        "time to live is {} instead of {wanted}",
                        arrival.ttl
                    );
                }
            }
        }
        Ok(())
    }

    /// Answers of all who were found, the way each game does it.
    fn answer(&mut self, faults: &mut Faults) -> Result<()> {
        let mut expected = Vec::new();
        for (id, profile) in self.games {
            let Some(discovery) = profile.discovery.as_ref().filter(|_| !faults.contains_key(id)) else {
                continue;
            };
            match self.send_answers(id, discovery) {
                Ok(answers) => expected.push((id, receiver(discovery).other(), answers)),
                Err(error) => drop(faults.insert(id.clone(), format!("{error:#}"))),
            }
        }
        for part in [Part::Client, Part::Host] {
            let answers: Vec<&Answer> = expected
                .iter()
                .filter(|(_, to, _)| *to == part)
                .flat_map(|(_, _, answers)| answers)
                .collect();
            let all = |log: &[Arrival]| answers.iter().all(|answer| log.iter().any(|it| answer.is(it)));
            self.side_mut(part).wait(all)?;
        }
        for (id, part, answers) in expected {
            let log = self.side(part).log();
            let missing = answers.iter().find(|answer| log.iter().filter(|it| answer.is(it)).count() != 1);
            if let Some(Answer { from, port, .. }) = missing {
                faults.insert(id.clone(), format!("the answer of {from} did not come to port {port}"));
            }
        }
        Ok(())
    }

    fn send_answers(&self, id: &str, discovery: &Discovery) -> Result<Vec<Answer>> {
        let part = receiver(discovery);
        let (answerer, asker) = (self.side(part), self.side(part.other()));
        let asked = SocketAddrV4::new(self.address(part.other()), self.sources[id]);
        let to = match discovery.reply {
            Reply::Join => return Ok(Vec::new()),
            Reply::Tcp => {
                let port = discovery.reply_port.unwrap_or_default();
                talk(answerer, asker, SocketAddrV4::new(*asked.ip(), port))?;
                return Ok(Vec::new());
            }
            Reply::Unicast => SocketAddrV4::new(*asked.ip(), discovery.reply_port.unwrap_or(asked.port())),
            Reply::Group => {
                SocketAddrV4::new(discovery.to[0].address(PARTY_BROADCAST), group_reply_port(discovery))
            }
        };
        let mut answers = Vec::new();
        for port in discovery.port_list() {
            let bytes = format!("{id} is here, port {port}").into_bytes();
            answerer.send(port, &bytes, to, ttl(discovery, *to.ip()))?;
            answers.push(Answer {
                from: SocketAddrV4::new(self.address(part), port),
                port: to.port(),
                bytes,
            });
        }
        Ok(answers)
    }

    /// Who sends to everybody, and who receives that.
    fn sides(&mut self, discovery: &Discovery) -> (&mut Side, &mut Side) {
        match discovery.sender {
            Sender::Client => (&mut self.client, &mut self.host),
            Sender::Host => (&mut self.host, &mut self.client),
        }
    }

    fn side(&self, part: Part) -> &Side {
        match part {
            Part::Client => &self.client,
            Part::Host => &self.host,
        }
    }

    fn side_mut(&mut self, part: Part) -> &mut Side {
        match part {
            Part::Client => &mut self.client,
            Part::Host => &mut self.host,
        }
    }

    const fn address(&self, part: Part) -> Ipv4Addr {
        let [client, host] = self.addresses;
        match part {
            Part::Client => client,
            Part::Host => host,
        }
    }
}

/// A datagram that must come.
#[derive(Debug)]
struct Answer {
    from: SocketAddrV4,
    port: u16,
    bytes: Vec<u8>,
}

impl Answer {
    fn is(&self, arrival: &Arrival) -> bool {
        (arrival.from, arrival.port, &arrival.bytes) == (self.from, self.port, &self.bytes)
    }
}

const fn receiver(discovery: &Discovery) -> Part {
    match discovery.sender {
        Sender::Client => Part::Host,
        Sender::Host => Part::Client,
    }
}

fn groups(discovery: &Discovery) -> impl Iterator<Item = Ipv4Addr> {
    discovery.to.iter().filter_map(|target| target.group())
}

/// How many one search sends.
fn packets(discovery: &Discovery) -> usize {
    discovery.port_list().len() * discovery.to.len() * usize::from(discovery.repeat)
}

fn group_reply_port(discovery: &Discovery) -> u16 {
    discovery.reply_port.unwrap_or_else(|| discovery.port_list()[0])
}

/// A group's packets live for one hop unless the game says otherwise.
fn ttl(discovery: &Discovery, to: Ipv4Addr) -> u8 {
    discovery.ttl.unwrap_or(if to.is_multicast() { 1 } else { TTL })
}

/// What the game sends, as far as that is known.
fn payload(id: &str, discovery: &Discovery) -> Vec<u8> {
    let mut bytes = discovery.payload.as_ref().map_or_else(|| id.into(), |payload| payload.0.clone());
    bytes.resize(discovery.length.map_or(bytes.len(), usize::from), 0);
    bytes
}
