//! A data path as the relay opens it, and sockets to send through it.

use anyhow::{Context, Result, ensure};
use lanrage_common::api::RelayMode;
use lanrage_common::relay::{Alternates, Flow, Leg, Target};
use lanrage_daemon::config::{RelayConfig, RelayModeChoice};
use lanrage_daemon::datapath::{Datapath, Served};
use lanrage_tests::lab::netns::Namespace;
use lanrage_tests::veth::Row;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::mpsc;
use std::time::{Duration, Instant};

pub const PORT: u16 = 3478;
pub const WIREGUARD: u16 = 51820;

/// What a test wants from the thread that owns the data path.
type Job = Box<dyn FnOnce(&mut Datapath) + Send>;

/// A data path on a thread in the relay's namespace, maintained as the relay does.
pub struct Relay {
    jobs: tokio::sync::mpsc::UnboundedSender<Job>,
}

impl Relay {
    pub fn open(row: &Row, config: RelayConfig) -> Relay {
        let any = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let served = Served::new(&any.map(|ip| SocketAddr::new(ip, PORT)), Alternates::default());
        let (jobs, mut inbox) = tokio::sync::mpsc::unbounded_channel::<Job>();
        let namespace = row.relay.clone();
        std::thread::spawn(move || {
            namespace.enter().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let mut datapath = Datapath::open(&config, served).await;
                loop {
                    tokio::select! {
                        job = inbox.recv() => match job {
                            Some(job) => job(&mut datapath),
                            None => return,
                        },
                        () = datapath.maintain() => {}
                    }
                }
            });
        });
        Relay { jobs }
    }

    pub fn ask<T: Send + 'static>(&self, question: impl FnOnce(&mut Datapath) -> T + Send + 'static) -> T {
        let (answer, inbox) = mpsc::channel();
        self.jobs.send(Box::new(move |datapath| drop(answer.send(question(datapath))))).ok().unwrap();
        inbox.recv_timeout(Duration::from_secs(20)).expect("the data path's thread answers")
    }

    pub fn install(&self, source: impl Into<SocketAddr>, index: u32, destination: impl Into<SocketAddr>) {
        let (flow, destination) = (Flow { source: source.into(), index }, destination.into());
        self.ask(move |datapath| datapath.install(flow, target(destination))).unwrap();
    }

    pub fn counter(&self, name: &'static str) -> u64 {
        self.ask(move |datapath| datapath.counters()[name])
    }

    pub fn mode(&self) -> RelayMode {
        self.ask(|datapath| datapath.report().mode)
    }
}

pub fn target(destination: impl Into<SocketAddr>) -> Target {
    let local = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PORT).into();
    let leg = Leg { local, remote: destination.into() };
    Target { leg, member: 1, expires: Instant::now() + Duration::from_secs(190) }
}

pub fn data(index: u32, counter: u64) -> Vec<u8> {
    let mut message = vec![4, 0, 0, 0];
    message.extend(index.to_le_bytes());
    message.extend(counter.to_le_bytes());
    message.extend([0xa5; 101]);
    message
}

pub fn socket(row_end: &Namespace, address: impl Into<SocketAddr>) -> Result<UdpSocket> {
    let address = address.into();
    let socket = row_end.run(|| UdpSocket::bind(address))??;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    Ok(socket)
}

pub fn config(mode: RelayModeChoice, interfaces: &[&str]) -> RelayConfig {
    let interfaces = interfaces.iter().map(|name| (*name).to_owned()).collect();
    RelayConfig { mode, interfaces, max_flows: 64, ..RelayConfig::default() }
}

/// Sends until one arrives, which shows that the way was found, then counts `packets` more.
pub fn forwards(
    relay: &Relay,
    from: &UdpSocket,
    via: impl Into<IpAddr>,
    to: &UdpSocket,
    index: u32,
    packets: u64,
) -> Result<u64> {
    let mut buffer = [0; 2048];
    let via = SocketAddr::new(via.into(), PORT);
    let opened =
        (0..20).any(|_| from.send_to(&data(index, 0), via).is_ok() && to.recv_from(&mut buffer).is_ok());
    ensure!(opened, "nothing arrived; counters: {:?}", relay.ask(|datapath| datapath.counters()));
    let mut received = 0;
    for counter in 1..=packets {
        from.send_to(&data(index, counter), via)?;
        let (length, source) = to.recv_from(&mut buffer).context("a packet was lost")?;
        ensure!(buffer[..length] == data(index, counter), "the payload changed");
        ensure!(source.port() == PORT, "the source port is {}", source.port());
        received += 1;
    }
    Ok(received)
}
