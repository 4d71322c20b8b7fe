//! Each lane alone, at the party's interface and without the tunnel behind it: the kernel's programs put copies there; the
//! daemon's core takes packets from there, and the members' cores unwrap its copies.

use super::super::generator::pin_to;
use super::{HEARERS, PAYLOAD, Storm, Tally, announcement, number_in, port_of};
use crate::lab::netns::Namespace;
use anyhow::{Context, Result, anyhow, ensure};
use lanrage_common::lane::{Inbound, Lane, OVERHEAD, Outbound};
use lanrage_daemon::lane::{KernelLane, Prepared};
use lanrage_daemon::platform::{Interface, InterfaceConfig};
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Own address; the members follow it.
pub const ME: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 1);
const NAME: &str = "lanrage0";
const SUBNET: &str = "10.66.0.0/16";
/// Copies that may wait to be taken: the interface has room for as many again.
const WAITING: u64 = 2048;
/// Nothing moved for so long: it does not move any more.
const STALL: Duration = Duration::from_secs(2);
const IPV4: usize = 20;

/// A network namespace that goes with this value.
#[derive(Debug)]
pub struct Place(pub Namespace);

impl Place {
    /// A fresh one.
    pub fn create() -> Result<Self> {
        let place = Namespace::named("lr-bench-lane");
        if place.exists() {
            place.delete()?;
        }
        place.create()?;
        Ok(Self(place))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = self.0.delete() {
            eprintln!("error: {error:#}");
        }
    }
}

/// The party's interface in this thread's namespace.
async fn interface() -> Result<Interface> {
    let config = InterfaceConfig { name: NAME.into(), address: ME, subnet: SUBNET.parse()?, mtu: 1420 };
    Ok(Interface::create(config).await?)
}

/// The lane of one in a party of [`HEARERS`] others.
fn lane_of(address: Ipv4Addr) -> Result<Lane> {
    let mut lane = Lane::new(address, SUBNET.parse()?);
    lane.set_members((0..HEARERS).map(member).chain([ME]));
    Ok(lane)
}

/// The party's interface in this thread's namespace, with the programs on it, for a party of [`HEARERS`] others.
pub async fn open() -> Result<(Interface, KernelLane)> {
    let (interface, lane) = (interface().await?, lane_of(ME)?);
    let mut kernel = KernelLane::open(&mut Prepared::default(), NAME, interface.index())
        .map_err(|why| anyhow!("the kernel lane does not work here: {}; {}", why.reason, why.fix))?;
    kernel.follow(&lane);
    Ok((interface, kernel))
}

fn member(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 66, 0, 2 + number)
}

/// As fast as the copies are taken from the interface, none is lost.
pub fn storm(announcements: u32) -> Result<Storm> {
    let place = Place::create()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (tally, took) = place.0.run(|| runtime.block_on(copies(&place.0, announcements)))??;
    Ok(Storm::new("kernel lane: copies at the interface", &tally, took.as_secs_f64()))
}

async fn copies(place: &Namespace, announcements: u32) -> Result<(Tally, Duration)> {
    let (interface, _lane) = open().await?;
    let (taken, sender) = begin(place, announcements);
    pin_to(1);
    let mut tally = Tally::new(announcements);
    let (start, mut buffer) = (Instant::now(), [0; 2048]);
    let (all, mut count) = (u64::from(announcements) * u64::from(HEARERS), 0);
    while count < all && tokio::time::timeout(STALL, interface.readable()).await.is_ok() {
        while let Ok(length) = interface.try_recv(&mut buffer) {
            count += u64::from(note(&mut tally, &buffer[..length]));
            taken.store(count, Ordering::Relaxed);
        }
    }
    let took = start.elapsed();
    sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    Ok((tally, took))
}

/// The same by the daemon's core; each copy is unwrapped by the core of its member.
pub fn storm_in_userspace(announcements: u32) -> Result<Storm> {
    let place = Place::create()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (tally, took) = place.0.run(|| runtime.block_on(deliveries(&place.0, announcements)))??;
    Ok(Storm::new("userspace lane: wrapped and unwrapped", &tally, took.as_secs_f64()))
}

async fn deliveries(place: &Namespace, announcements: u32) -> Result<(Tally, Duration)> {
    let (interface, mut lane) = (interface().await?, lane_of(ME)?);
    let mut members = (0..HEARERS).map(|number| lane_of(member(number))).collect::<Result<Vec<_>>>()?;
    let (taken, sender) = begin(place, announcements);
    let mut tally = Tally::new(announcements);
    let (start, mut buffer) = (Instant::now(), [0; 2048]);
    let (all, mut count) = (u64::from(announcements) * u64::from(HEARERS), 0);
    while count < all && tokio::time::timeout(STALL, interface.readable()).await.is_ok() {
        while let Ok(length) = interface.try_recv(&mut buffer) {
            let now = Instant::now();
            if lane.handle_outbound(&buffer[..length], now) != Outbound::Copies {
                continue;
            }
            while let Some((to, copy)) = lane.poll_copy() {
                let number = usize::from(to.octets()[3].wrapping_sub(2));
                let inbound = members.get_mut(number).map(|member| member.handle_inbound(copy, ME, now));
                if let Some(Inbound::Deliver(packet)) = inbound {
                    count += u64::from(number_in(&packet[IPV4..]).is_some_and(|n| tally.note(number, n)));
                }
            }
            taken.store(count, Ordering::Relaxed);
        }
    }
    let took = start.elapsed();
    sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    Ok((tally, took))
}

/// Begins to announce; the counter says how many copies are taken.
fn begin(place: &Namespace, announcements: u32) -> (Arc<AtomicU64>, std::thread::JoinHandle<Result<()>>) {
    let taken = Arc::new(AtomicU64::new(0));
    let (place, counter) = (place.clone(), taken.clone());
    let work = move || place.enter().and_then(|()| announce(announcements, &counter));
    (taken, std::thread::spawn(work))
}

/// Counts a copy.
fn note(tally: &mut Tally, packet: &[u8]) -> bool {
    let Some(inner) = packet.get(OVERHEAD..).filter(|inner| inner.len() == IPV4 + 8 + PAYLOAD) else {
        return false;
    };
    let member = packet[19].wrapping_sub(2);
    number_in(&inner[IPV4..]).is_some_and(|number| tally.note(member.into(), number))
}

fn announce(announcements: u32, taken: &AtomicU64) -> Result<()> {
    pin_to(0);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 4001))?;
    socket.set_broadcast(true)?;
    for number in 0..announcements {
        let sent = u64::from(number) * u64::from(HEARERS);
        let since = Instant::now();
        while sent - taken.load(Ordering::Relaxed).min(sent) > WAITING {
            ensure!(since.elapsed() < STALL, "copies were lost at the interface");
            std::hint::spin_loop();
        }
        socket
            .send_to(&announcement(number), (Ipv4Addr::BROADCAST, port_of(number)))
            .context("cannot send to everybody")?;
    }
    Ok(())
}
