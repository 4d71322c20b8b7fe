//! The lane in the whole product: daemons in a lab, WireGuard between them, games' sockets at both ends.

use super::super::latency::percentiles;
use super::home::Home;
use super::{FIRST_PORT, HEARERS, LabEnd, Latency, Storm, Tally, announcement, number_in, port_of};
use crate::lab::nat::NatKind;
use crate::lab::netns::Namespace;
use crate::lab::process::wait_until;
use crate::lab::role::Role;
use crate::lab::running::{Lab, Options, down};
use anyhow::{Context, Result, ensure};
use lanrage_common::api::LaneMode;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Of the lab.
pub const NAME: &str = "bench";
const LANES: [(&str, LaneMode); 2] = [("userspace", LaneMode::Userspace), ("kernel", LaneMode::Kernel)];
/// Announcements under way at once: every queue between here and there has room for them and their copies.
const WAITING: u64 = 24;
/// Nothing moved for so long: what is missing is lost.
const STALL: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(20);
const ASKER: u16 = 4001;
const IPV4: usize = 20;
/// Between two questions to everybody at one port, which may have 200 a second.
const PACE: Duration = Duration::from_micros(5_500);

/// Everybody in one party, with paths to everybody.
struct Party {
    lab: Lab,
    _end: LabEnd,
}

impl Party {
    fn of(peers: usize) -> Result<Self> {
        down(NAME)?;
        let end = LabEnd;
        let mut lab = Lab::up(&Options::new(NAME, &vec![NatKind::None; peers]))?;
        lab.form_party()?;
        lab.wait_for_paths()?;
        // paths settle: the first seconds have probes and moves to direct paths in them
        std::thread::sleep(Duration::from_secs(5));
        Ok(Self { lab, _end: end })
    }

    fn peer(&self, n: u8) -> Namespace {
        self.lab.namespace(Role::Peer(n))
    }

    /// Everybody carries group packets so.
    fn use_lane(&self, (name, mode): (&str, LaneMode)) -> Result<()> {
        for peer in self.lab.peers() {
            self.lab.lanrage_output(Role::Peer(peer.n), &["settings", "peer.lane", name])?;
            let is_so = || {
                let status = self.lab.daemon_status(Role::Peer(peer.n)).ok().and_then(|status| status.party);
                status.is_some_and(|party| party.lane.mode == mode)
            };
            ensure!(wait_until(PATIENCE, is_so), "peer {} does not use the {name} lane", peer.n);
        }
        Ok(())
    }
}

/// Both lanes, from the first member to all others.
pub fn storms(announcements: u32) -> Result<Vec<Storm>> {
    let party = Party::of(usize::from(HEARERS) + 1)?;
    let names = ["userspace lane: daemons and tunnels", "kernel lane: daemons and tunnels"];
    let storm = |(lane, name)| -> Result<Storm> {
        party.use_lane(lane)?;
        let (tally, took) = storm(&party, announcements)?;
        Ok(Storm::new(name, &tally, took.as_secs_f64()))
    };
    LANES.into_iter().zip(names).map(storm).collect()
}

fn storm(party: &Party, announcements: u32) -> Result<(Tally, Duration)> {
    let hearers = (2..HEARERS + 2).map(|n| hear(&party.peer(n))).collect::<Result<Vec<_>>>()?;
    // what has come to the slowest member, or is lost
    let (heard, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let mut tally = Tally::new(announcements);
    let start = Instant::now();
    let mut last = start;
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| party.peer(1).run(|| announce(announcements, &heard, &stop)));
        let mut passed = vec![0; hearers.len()];
        let mut buffer = [0; 2048];
        while heard.load(Ordering::Relaxed) < announcements.into() && last.elapsed() < STALL {
            let mut is_idle = true;
            for (member, (mut socket, passed)) in hearers.iter().zip(&mut passed).enumerate() {
                while let Ok(length) = socket.read(&mut buffer) {
                    let number = buffer.get(IPV4..length).and_then(number_in);
                    if let Some(number) = number.filter(|number| tally.note(member, *number)) {
                        *passed = u64::from(number + 1).max(*passed);
                    }
                    is_idle = false;
                }
            }
            heard.store(passed.iter().min().copied().unwrap_or(0), Ordering::Relaxed);
            match is_idle {
                true => std::thread::sleep(Duration::from_micros(300)),
                false => last = Instant::now(),
            }
        }
        stop.store(true, Ordering::Relaxed);
        sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?
    })?;
    Ok((tally, last - start))
}

/// Hears all ports of the party's interface at once.
fn hear(place: &Namespace) -> Result<Socket> {
    let open = || -> std::io::Result<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP))?;
        socket.bind_device(Some(b"lanrage0"))?;
        socket.set_recv_buffer_size(4 << 20)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    place.run(open)?.context("cannot hear what a member gets")
}

fn announce(announcements: u32, heard: &AtomicU64, stop: &AtomicBool) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, ASKER))?;
    socket.set_broadcast(true)?;
    for number in 0..announcements {
        while u64::from(number).saturating_sub(heard.load(Ordering::Relaxed)) > WAITING {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        socket.send_to(&announcement(number), (Ipv4Addr::BROADCAST, port_of(number)))?;
    }
    Ok(())
}

/// Questions to one member and to everybody in turn, and from a device behind the gateway and the gateway in turn, in a
/// party of two.
pub fn round_trips(questions: usize) -> Result<Vec<Latency>> {
    let party = Party::of(2)?;
    let ben: SocketAddr = (party.lab.overlay(2)?, FIRST_PORT).into();
    let everybody: SocketAddr = (Ipv4Addr::BROADCAST, FIRST_PORT).into();
    let (ana, answerer) = (asker(&party.peer(1))?, party.peer(2));
    let mut all = Vec::new();
    for (with, lane) in ["the userspace lane", "the kernel lane"].into_iter().zip(LANES) {
        party.use_lane(lane)?;
        all.push(compare(with, &answerer, [(&ana, ben), (&ana, everybody)], questions)?);
    }
    let home = Home::beside(&party.lab)?;
    let device = asker(&home.device)?;
    let alias = (home.alias(&party.lab, ben.ip())?, FIRST_PORT).into();
    // its address in the party is leased and told before it speaks
    let is_heard = || answer_to(&answerer, || ask(&device, alias, 0)).is_ok_and(|answer| answer.is_some());
    ensure!(wait_until(PATIENCE, is_heard), "the device behind the gateway is not heard");
    let with = "a gateway, from a device at home";
    all.push(compare(with, &answerer, [(&ana, ben), (&device, alias)], questions)?);
    Ok(all)
}

fn asker(place: &Namespace) -> Result<UdpSocket> {
    let socket = place.play(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, ASKER)))??;
    socket.set_broadcast(true)?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    Ok(socket)
}

/// Does something while all questions are answered there.
fn answer_to<T>(place: &Namespace, work: impl FnOnce() -> T) -> Result<T> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let echo = scope.spawn(|| place.play(|| echo(&stop)));
        let result = work();
        stop.store(true, Ordering::Relaxed);
        echo.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))??;
        Ok(result)
    })
}

/// Questions in two ways in turn.
fn compare(
    with: &'static str,
    answerer: &Namespace,
    ways: [(&UdpSocket, SocketAddr); 2],
    questions: usize,
) -> Result<Latency> {
    let (mut samples, mut lost) = ([Vec::new(), Vec::new()], 0);
    answer_to(answerer, || {
        for number in 0..2 * questions as u32 {
            // 0, 1, 1, 0: neither is always the one that waits for the other
            let way = usize::from(number % 4 == 1 || number % 4 == 2);
            let next = Instant::now() + PACE;
            match ask(ways[way].0, ways[way].1, number) {
                Some(took) => samples[way].push(took.as_nanos() as f64 / 1e3),
                None => lost += 1,
            }
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    })?;
    ensure!(samples.iter().all(|samples| !samples.is_empty()), "no question was answered with {with}");
    let [plain_us, with_us] = [percentiles(&samples[0]), percentiles(&samples[1])];
    Ok(Latency {
        with,
        plain_us,
        with_us,
        added_us: [with_us.p50 - plain_us.p50, with_us.p99 - plain_us.p99],
        questions: samples[0].len().min(samples[1].len()),
        lost,
    })
}

fn ask(socket: &UdpSocket, to: SocketAddr, number: u32) -> Option<Duration> {
    let (sent, mut buffer) = (Instant::now(), [0; 2048]);
    socket.send_to(&announcement(number), to).ok()?;
    while let Ok(length) = socket.recv(&mut buffer) {
        if buffer[..length] == announcement(number) {
            return Some(sent.elapsed());
        }
    }
    None
}

fn echo(stop: &AtomicBool) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, FIRST_PORT))?;
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            // what does not go out is lost at the other end
            let _ = socket.send_to(&buffer[..length], from);
        }
    }
    Ok(())
}
