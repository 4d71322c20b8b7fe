//! A LAN party across two NATs, played and told.

use super::nat::NatKind;
use super::party::{mode_word, path_word};
use super::role::Role;
use super::running::{Lab, Options, down};
use super::traffic::{Count, Discovery, Ping, Pulse, Station, Stream, ping};
use anyhow::{Context, Result, bail, ensure};
use lanrage_common::api::{PathKind, RelayStatus};
use serde::Serialize;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

/// Name of the demo's lab.
pub const LAB: &str = "demo";
const STREAM: Stream = Stream { packets: 10_000, size: 200, rate: 2500, port: 37015 };
const PINGS: u64 = 20;
const QUESTIONS: u64 = 10;
/// Where Minecraft announces worlds.
const MINECRAFT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(224, 0, 2, 60), 4445);
const BROADCAST: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::BROADCAST, 37960);
/// How long the switch to a direct path may take.
const SWITCH: Duration = Duration::from_secs(60);
/// The daemon's status is up to a second old.
const REFRESH: Duration = Duration::from_millis(1500);

/// Figures of a demo; the field names are a documented interface.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// How the relay forwarded.
    pub relay_mode: String,
    /// The path on which ping, UDP and discovery were measured.
    pub path: String,
    /// Both ways together.
    pub ping: Ping,
    /// Both ways together.
    pub udp: Count,
    /// Questions and answers.
    pub lan: Lan,
    /// Data packets that the XDP program forwarded meanwhile.
    pub kernel_forwarded: u64,
    /// Data packets that the relay's daemon forwarded meanwhile.
    pub userspace_forwarded: u64,
    /// From the change of the NATs (or from joining, if they allowed it at once) to a direct path.
    pub direct_after_ms: Option<u64>,
}

/// Discovery.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Lan {
    /// To 255.255.255.255.
    pub broadcast: Count,
    /// To 224.0.2.60:4445.
    pub multicast: Count,
}

/// The lab of the demo; gone when the demo is, however it ends.
struct Stage(Lab);

impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(error) = down(LAB) {
            eprintln!("cannot take the demo's lab down: {error:#}");
        }
    }
}

/// Plays the demo. The report is filled as far as it got, also when the demo fails.
pub fn play(nats: [NatKind; 2], report: &mut Report) -> Result<()> {
    if nats.contains(&NatKind::UdpBlocked) {
        bail!("the demo needs UDP: choose none, eim or symmetric");
    }
    println!("LANrage demo: a LAN party across two NATs\n");
    let start = Instant::now();
    let mut stage = Stage(Lab::up(&Options::new(LAB, &nats))?);
    let lab = &mut stage.0;
    let relay = relay_status(lab)?;
    report.relay_mode = mode_word(relay.mode).into();
    tell(
        "internet",
        &format!("two routers ({}, {}), a control server, a relay ({})", nats[0], nats[1], report.relay_mode),
        start,
    );

    let direct = party(lab, nats, report)?;
    measure(lab, report)?;
    check(nats, report, &relay)?;
    if direct {
        println!("\nThese NATs allow a direct path at once, so there is no switch to show.");
    } else {
        switch(lab, report)?;
    }
    println!("\nEverything worked. It took {:.0} s.", start.elapsed().as_secs_f64());
    Ok(())
}

/// Forms the party; whether the pair talks directly.
fn party(lab: &mut Lab, nats: [NatKind; 2], report: &mut Report) -> Result<bool> {
    let start = Instant::now();
    lab.form_party()?;
    lab.wait_for_paths()?;
    let direct = nats[0].allows_direct(nats[1]);
    if direct {
        lab.wait_for_path((1, 2), PathKind::Direct, SWITCH)?;
        report.direct_after_ms = Some(milliseconds(start));
    }
    let path = lab.path(1, 2)?;
    report.path = path_word(path).into();
    let names = [&lab.peers()[0].name, &lab.peers()[1].name];
    let text = format!(
        "{} founds a party ({}), {} joins by invite ({}), they talk: {}",
        names[0],
        lab.overlay(1)?,
        names[1],
        lab.overlay(2)?,
        report.path
    );
    tell("party", &text, start);
    println!("{:>12}  {}", "", lab.member(1, 2)?.why);
    Ok(direct)
}

fn measure(lab: &Lab, report: &mut Report) -> Result<()> {
    let [a, b] = stations(lab)?;
    let before = relay_status(lab)?;
    ping_both_ways(&a, &b, report)?;
    stream_both_ways(&a, &b, report)?;
    discover(&a, &b, report)?;
    std::thread::sleep(REFRESH);
    let after = relay_status(lab)?;
    report.kernel_forwarded = after.kernel_forwarded.saturating_sub(before.kernel_forwarded);
    report.userspace_forwarded = after.userspace_forwarded.saturating_sub(before.userspace_forwarded);
    println!(
        "{:>12}  forwarded {} data packets in the kernel and {} in the daemon",
        "relay", report.kernel_forwarded, report.userspace_forwarded
    );
    Ok(())
}

fn ping_both_ways(a: &Station, b: &Station, report: &mut Report) -> Result<()> {
    let start = Instant::now();
    let there = ping(a, b.address, PINGS)?;
    let back = ping(b, a.address, PINGS)?;
    let mut times: Vec<f64> = [there, back].into_iter().filter_map(|ping| ping.rtt_ms_p50).collect();
    times.sort_by(f64::total_cmp);
    report.ping = Ping {
        sent: there.sent + back.sent,
        received: there.received + back.received,
        rtt_ms_p50: super::traffic::median(&times),
    };
    let median = report.ping.rtt_ms_p50.map_or("-".into(), |time| format!("{time:.2} ms"));
    tell(
        "ping",
        &format!("{} of {} answered, half of them within {median}", report.ping.received, report.ping.sent),
        start,
    );
    Ok(())
}

fn stream_both_ways(a: &Station, b: &Station, report: &mut Report) -> Result<()> {
    let start = Instant::now();
    let (there, back) = std::thread::scope(|scope| {
        let there = scope.spawn(|| STREAM.play(a, b));
        let back = STREAM.play(b, a);
        (there.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), back)
    });
    report.udp = there? + back?;
    let Count { sent, received } = report.udp;
    tell(
        "game traffic",
        &format!("{received} of {sent} UDP packets of {} bytes arrived", STREAM.size),
        start,
    );
    Ok(())
}

fn discover(a: &Station, b: &Station, report: &mut Report) -> Result<()> {
    for (destination, name) in [(BROADCAST, "broadcast"), (MINECRAFT, "multicast")] {
        let start = Instant::now();
        let found = Discovery { destination, questions: QUESTIONS }.play(a, b)?;
        let Count { sent, received } = found.count;
        tell(
            name,
            &format!("{received} of {sent} searches at {destination} found the game on the other machine"),
            start,
        );
        match name {
            "broadcast" => report.lan.broadcast = found.count,
            _ => report.lan.multicast = found.count,
        }
    }
    Ok(())
}

/// Whether the figures are what was promised.
fn check(nats: [NatKind; 2], report: &Report, relay: &RelayStatus) -> Result<()> {
    ensure!(report.ping.received > 0, "no ping was answered");
    ensure!(report.udp.received * 100 >= report.udp.sent * 99, "more than 1 % of the UDP packets were lost");
    ensure!(report.lan.broadcast.received > 0, "no broadcast search was answered");
    ensure!(report.lan.multicast.received > 0, "no multicast search was answered");
    if nats[0].allows_direct(nats[1]) {
        return Ok(());
    }
    ensure!(report.path == "relay", "these NATs need the relay, but the path is {}", report.path);
    ensure!(
        report.kernel_forwarded >= report.udp.sent,
        "the kernel program forwarded only {} packets of at least {}; the relay's mode is {}{}{}",
        report.kernel_forwarded,
        report.udp.sent,
        report.relay_mode,
        relay.mode_reason.as_ref().map_or(String::new(), |reason| format!(": {reason}")),
        relay.mode_fix.as_ref().map_or(String::new(), |fix| format!(". {fix}")),
    );
    Ok(())
}

/// Makes both NATs friendly and waits for the direct path.
fn switch(lab: &mut Lab, report: &mut Report) -> Result<()> {
    println!("\nNow both routers stop to randomise ports (their NATs become eim).\n");
    let [a, b] = stations(lab)?;
    let pulse = Pulse::start(&a, &b, 37016, Duration::from_millis(50))?;
    std::thread::sleep(Duration::from_millis(500));
    let start = Instant::now();
    lab.change_nat(1, NatKind::Eim)?;
    lab.change_nat(2, NatKind::Eim)?;
    let switched = lab.wait_for_path((1, 2), PathKind::Direct, SWITCH);
    let after = milliseconds(start);
    std::thread::sleep(Duration::from_secs(1));
    let beats = pulse.stop();
    let Count { sent, received } = beats.count;
    switched.context("the path did not become direct")?;
    report.direct_after_ms = Some(after);
    tell("switch", &format!("direct after {:.1} s", f64::from(u32::try_from(after)?) / 1000.0), start);
    let gap = beats.longest_gap.as_millis();
    println!("{:>12}  {received} of {sent} packets meanwhile came back, longest silence {gap} ms", "");
    println!("{:>12}  {}", "", lab.member(1, 2)?.why);
    let now = ping(&a, b.address, PINGS)?;
    let median = now.rtt_ms_p50.map_or("-".into(), |time| format!("{time:.2} ms"));
    println!("{:>12}  {} of {} answered, half of them within {median}", "ping", now.received, now.sent);
    ensure!(now.received > 0, "no ping was answered on the direct path");
    Ok(())
}

fn stations(lab: &Lab) -> Result<[Station; 2]> {
    let station = |n| {
        Ok::<_, anyhow::Error>(Station { namespace: lab.namespace(Role::Peer(n)), address: lab.overlay(n)? })
    };
    Ok([station(1)?, station(2)?])
}

fn relay_status(lab: &Lab) -> Result<RelayStatus> {
    lab.daemon_status(Role::Relay)?.relay.context("the relay's status says nothing about a relay")
}

fn milliseconds(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn tell(what: &str, text: &str, start: Instant) {
    println!("{what:>12}  {text} ({:.1} s)", start.elapsed().as_secs_f64());
}
