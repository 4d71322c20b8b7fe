//! Relays that die, come back and are replaced while packets pass. Needs root and bpffs.

use anyhow::{Context, Result, ensure};
use lanrage_common::api::{Problem, RelayMode, RelayStatus};
use lanrage_common::binding::LIFETIME;
use lanrage_tests::bench::session;
use lanrage_tests::lab::process::{self, wait_until};
use lanrage_tests::relay_daemon::{PORT, RelayDaemon, remove};
use lanrage_tests::stream::{Lane, Stream, Tally};
use lanrage_tests::veth::{CLIENT, PEER, RELAY_A, RELAY_B, Row};
use std::fs;
use std::net::SocketAddrV4;
use std::ops::{Deref, DerefMut};
use std::process::Command;
use std::time::{Duration, Instant};

const MEMBER: u16 = 51820;
const PAIRS: u16 = 3;
const PATIENCE: Duration = Duration::from_secs(20);

/// The relay's daemon between two sides, as it is installed: kept by its state and its pins alone.
struct Relay {
    // ends before its interfaces do
    daemon: RelayDaemon,
    row: Row,
}

impl Deref for Relay {
    type Target = RelayDaemon;
    fn deref(&self) -> &RelayDaemon {
        &self.daemon
    }
}

impl DerefMut for Relay {
    fn deref_mut(&mut self) -> &mut RelayDaemon {
        &mut self.daemon
    }
}

impl Relay {
    fn start(name: &str) -> Result<Self> {
        let row = Row::create(name)?;
        row.pass_at_ends()?;
        let mut daemon = RelayDaemon::new(&row.relay, name)?;
        daemon.run()?;
        Ok(Self { daemon, row })
    }

    /// A pair of members with a WireGuard session, and packets that go from one to the other.
    fn pair(&self, number: u16) -> Result<Stream> {
        let key = self.ticket_key()?;
        let port = MEMBER + number;
        let relay = |address| SocketAddrV4::new(address, PORT);
        let (client, peer) = (SocketAddrV4::new(CLIENT, port), SocketAddrV4::new(PEER, port));
        let ends = [(&self.row.client, client, relay(RELAY_A)), (&self.row.peer, peer, relay(RELAY_B))];
        let index = session::establish(ends, &key)?;
        let lane = Lane {
            session: number.into(),
            index,
            from: client.into(),
            relay: relay(RELAY_A).into(),
            to: peer.into(),
        };
        Stream::start((&self.row.client, &self.row.peer), lane, Duration::from_micros(200))
    }

    /// Pairs whose packets pass, in the kernel.
    fn pairs(&self) -> Result<Vec<Stream>> {
        let streams: Vec<Stream> = (0..PAIRS).map(|number| self.pair(number)).collect::<Result<_>>()?;
        let settled = wait_until(PATIENCE, || {
            let counts = self.status().map(|status| (status.mode, status.kernel_forwarded));
            counts.is_some_and(|(mode, packets)| mode == RelayMode::XdpNative && packets > 500)
        });
        ensure!(settled, "nothing is forwarded in the kernel: {:?}\n{}", self.status(), self.log());
        Ok(streams)
    }
}

fn unpinned(status: &RelayStatus) -> Option<&Problem> {
    status.problems.iter().find(|problem| problem.code == "relay_not_pinned")
}

fn moves_on(streams: &[Stream]) -> bool {
    let before: Vec<u64> = streams.iter().map(Stream::arrived).collect();
    wait_until(Duration::from_secs(5), || {
        streams.iter().zip(&before).all(|(stream, before)| stream.arrived() > before + 100)
    })
}

/// Whether nothing arrives any more, once what was on its way has.
fn ends(streams: &[Stream]) -> bool {
    wait_until(PATIENCE, || {
        let arrived = || -> Vec<u64> { streams.iter().map(Stream::arrived).collect() };
        let before = arrived();
        std::thread::sleep(Duration::from_millis(500));
        arrived() == before
    })
}

fn all_arrived(streams: Vec<Stream>) -> Result<()> {
    for stream in streams {
        wait_until(PATIENCE, || stream.arrived() > 1000);
        let tally = stream.stop()?;
        println!("{tally:?}");
        ensure!(tally.sent > 1000, "too few packets to say anything: {tally:?}");
        ensure!(tally == Tally { arrived: tally.sent, astray: 0, twice: 0, ..tally }, "{tally:?}");
    }
    Ok(())
}

#[test]
fn a_killed_relay_forwards_on_and_is_taken_over() -> Result<()> {
    let mut relay = Relay::start("svk")?;
    let streams = relay.pairs()?;
    for _ in 0..3 {
        relay.kill()?;
        ensure!(moves_on(&streams), "nothing passes without the daemon");
        let status = relay.run()?;
        ensure!(status.mode == RelayMode::XdpNative && status.bindings == u32::from(PAIRS) * 2, "{status:?}");
        ensure!(status.flows >= u32::from(PAIRS), "{status:?}");
        ensure!(moves_on(&streams), "nothing passes after the restart");
    }
    all_arrived(streams)
}

#[test]
fn twenty_upgrades_lose_nothing_and_lead_nothing_astray() -> Result<()> {
    let mut relay = Relay::start("svu")?;
    let streams = relay.pairs()?;
    let began = Instant::now();
    // nobody renews these bindings, which then end
    for round in (0..20).take_while(|_| began.elapsed() < LIFETIME / 2) {
        let status = relay.restart()?;
        ensure!(status.bindings == u32::from(PAIRS) * 2, "round {round}: {status:?}\n{}", relay.log());
    }
    ensure!(moves_on(&streams), "nothing passes after the upgrades");
    all_arrived(streams)
}

#[test]
fn an_upgrade_to_maps_of_another_size_loses_nothing() -> Result<()> {
    let mut relay = Relay::start("svs")?;
    let streams = relay.pairs()?;
    for max_flows in [2000, 70_000, 500] {
        relay.max_flows = max_flows;
        let status = relay.restart()?;
        ensure!(status.flows >= u32::from(PAIRS) && status.mode == RelayMode::XdpNative, "{status:?}");
        ensure!(moves_on(&streams), "nothing passes with room for {max_flows} flows");
        ensure!(relay.kept("maps-")? == 1, "the old maps are still there");
    }
    all_arrived(streams)
}

#[test]
fn a_start_may_be_interrupted_anywhere() -> Result<()> {
    let mut relay = Relay::start("svi")?;
    let streams = relay.pairs()?;
    relay.kill()?;
    for round in 0..50 {
        // Another size every other time, so that new maps are made as well.
        relay.max_flows = 1000 + round % 2;
        relay.launch()?;
        std::thread::sleep(Duration::from_millis(u64::from(round) * 4));
        relay.kill()?;
    }
    let status = relay.run()?;
    ensure!(status.mode == RelayMode::XdpNative && status.bindings == u32::from(PAIRS) * 2, "{status:?}");
    ensure!(moves_on(&streams), "nothing passes any more");
    ensure!(relay.kept("maps-")? == 1 && relay.kept("link-")? == 2, "something is left over");
    all_arrived(streams)
}

#[test]
fn nonsense_in_the_pin_directory_keeps_no_relay_from_starting() -> Result<()> {
    let mut relay = Relay::start("svg")?;
    relay.kill()?;
    let home = relay.home()?;
    let set = relay.entries("maps-")?.remove(0);
    fs::create_dir_all(home.join("maps-v2-nonsense/FLOWS"))?;
    fs::create_dir_all(home.join("maps-v77-12345678"))?;
    fs::create_dir_all(home.join("maps-new/FLOWS"))?;
    fs::create_dir_all(home.join("what-is-this/deep"))?;
    fs::create_dir(home.join("link-1-2-native"))?;
    fs::remove_file(set.join("FLOWS"))?;
    fs::rename(set.join("LOCAL"), set.join("FLOWS"))?;
    let link = relay.entries("link-")?.into_iter().find(|path| path.is_file()).context("no link")?;
    fs::rename(set.join("NEXT_HOPS"), &link)?;
    let status = relay.run()?;
    ensure!(status.mode == RelayMode::XdpNative && unpinned(&status).is_none(), "{status:?}");
    ensure!(relay.kept("maps-")? == 1 && relay.kept("link-")? == 2 && relay.kept("")? == 3, "rubbish stays");
    all_arrived(relay.pairs()?)
}

#[test]
fn a_relay_without_bpffs_says_what_that_means() -> Result<()> {
    let mut relay = Relay::start("svb")?;
    relay.kill()?;
    let pins = std::mem::replace(&mut relay.pins, "/run/lanrage-test-no-bpffs".into());
    remove(&pins)?;
    let status = relay.run()?;
    let problem = unpinned(&status).context("no problem is reported")?;
    ensure!(problem.fix.contains("mount -t bpf"), "{problem:?}");
    ensure!(status.mode == RelayMode::XdpNative && !relay.pins.exists(), "{status:?}");
    Ok(())
}

#[test]
fn a_full_table_leaves_the_others_alone() -> Result<()> {
    let mut relay = Relay::start("svf")?;
    relay.max_flows = 4;
    relay.restart()?;
    let first = relay.pair(0)?;
    ensure!(moves_on(std::slice::from_ref(&first)), "nothing passes");
    ensure!(relay.pair(1).is_err(), "a pair of the same party got more than the party's share");
    let status = relay.status().context("no status")?;
    ensure!(status.flows == 2 && status.userspace.contains_key("party_full"), "{status:?}");
    all_arrived(vec![first])
}

#[test]
fn flows_taken_over_follow_neighbours_routes_and_links() -> Result<()> {
    let mut relay = Relay::start("svn")?;
    let streams = relay.pairs()?;
    relay.kill()?;
    relay.run()?;
    relay.row.peer.ip("link set b0 address 02:00:00:00:07:07")?;
    relay.row.relay.ip("neigh replace 10.71.2.2 lladdr 02:00:00:00:07:07 dev rb nud reachable")?;
    ensure!(moves_on(&streams), "after the peer's MAC address changed");
    relay.row.peer.ip("addr add 10.71.2.77/24 dev b0")?;
    relay.row.relay.ip("route add 10.71.2.2/32 via 10.71.2.77")?;
    ensure!(moves_on(&streams), "after the route changed");
    relay.row.relay.ip("link set rb down")?;
    std::thread::sleep(Duration::from_secs(1));
    relay.row.relay.ip("link set rb up\nroute replace 10.71.2.2/32 via 10.71.2.77")?;
    ensure!(moves_on(&streams), "after the link came back");
    for stream in streams {
        let tally = stream.stop()?;
        ensure!(tally.astray == 0 && tally.twice == 0, "{tally:?}");
    }
    Ok(())
}

#[test]
fn detaching_ends_what_a_stopped_relay_forwards() -> Result<()> {
    let mut relay = Relay::start("svd")?;
    let streams = relay.pairs()?;
    relay.process.take().context("the relay does not run")?.end(PATIENCE)?;
    ensure!(moves_on(&streams), "a stopped relay does not forward on");
    let mut command = Command::new(process::program("lanrage-daemon")?);
    command.args(["relay", "--detach", "--config"]).arg(relay.dir.path().join("lanrage.toml"));
    relay.row.relay.output(&mut command)?;
    ensure!(ends(&streams) && relay.kept("")? == 0, "it still forwards");
    streams.into_iter().try_for_each(|stream| stream.stop().map(drop))
}

#[test]
fn a_drained_relay_ends_by_itself_and_leaves_nothing_behind() -> Result<()> {
    let mut relay = Relay::start("sve")?;
    let streams = relay.pairs()?;
    relay.lanrage(&["relay", "drain", "--no-wait"])?;
    let status = relay.status().context("it ended before it was empty")?;
    ensure!(status.draining && status.bindings == u32::from(PAIRS) * 2, "{status:?}");
    ensure!(relay.pair(PAIRS).is_err(), "it takes new members");
    ensure!(moves_on(&streams), "it does not serve those it has");
    let ended = relay.lanrage(&["relay", "drain", "--now"]);
    ensure!(ended.is_err_and(|error| format!("{error:#}").contains("exit status: 1")), "members were left");
    let process = relay.process.take().context("the relay does not run")?;
    ensure!(process.wait(PATIENCE), "it does not end");
    ensure!(relay.kept("")? == 0 && ends(&streams), "the kernel still forwards");
    streams.into_iter().try_for_each(|stream| stream.stop().map(drop))
}
