//! Asks the home router to let others in to the tunnel's port. IPv4: to forward it, by PCP (RFC 6887), NAT-PMP (RFC 6886)
//! and UPnP-IGD, all at once, of which one lease is kept. IPv6: to open its firewall. Both are renewed at half their time,
//! and given back at the end.

mod control;
mod pinhole;
mod protocol;

use crate::platform;
use lanrage_common::nat::PortMapping;
use pinhole::Pinhole;
use protocol::{Found, Lease};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// What is asked for, in seconds.
const LIFETIME: u32 = 2 * 3600;
/// What a router may be kept at by a short lease.
const SHORTEST: Duration = Duration::from_secs(60);
/// UPnP answers a search within this time.
const SEARCH: Duration = Duration::from_secs(3);
/// Between attempts where no router lets anybody in: somebody may switch it on.
const RETRY: Duration = Duration::from_secs(5 * 60);
/// Changes of the network come in bunches, and a new address needs a moment.
const CALM: Duration = Duration::from_millis(500);
/// Giving a lease back may take this long; then it runs out by itself.
const FAREWELL: Duration = Duration::from_secs(2);

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forwarding {
    /// By which protocol; `None` before the first attempt has ended, [`PortMapping::None`] when by none.
    pub by: Option<PortMapping>,
    /// The public address and port that lead to the tunnel's socket.
    pub external: Option<SocketAddr>,
    /// The router's address on its far side, as it says.
    pub gateway_address: Option<IpAddr>,
    /// Protocols to which the router answers.
    pub protocols: Vec<PortMapping>,
    /// Why no port is forwarded, and what to do.
    pub problem: Option<String>,
    /// The same for IPv6.
    pub pinhole: Opening,
}

/// What came of asking for a way in by IPv6. Empty without IPv6, and before the first attempt has ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opening {
    /// The own address that the router's firewall lets others in to.
    pub address: Option<SocketAddr>,
    /// By which protocol.
    pub by: Option<PortMapping>,
    /// Why it does not, and what to do.
    pub problem: Option<String>,
}

/// What both keepers tell.
type Shared = Arc<watch::Sender<Forwarding>>;

/// Something that a router gives for a while.
trait Held: Sized + Send {
    /// Asks for it, and tells what came of that.
    fn obtain(port: NonZeroU16, state: &Shared) -> impl Future<Output = Option<Self>> + Send;
    /// How long it holds.
    fn lifetime(&self) -> Duration;
    /// The same again, if the router still gives it and nothing about it has changed.
    fn renew(self) -> impl Future<Output = Option<Self>> + Send;
    /// Gives it back.
    fn release(self) -> impl Future<Output = ()> + Send;
}

/// A port that is kept open. Dropping it gives up without telling the router; [`PortMapper::close`] tells it.
#[derive(Debug)]
pub struct PortMapper {
    state: watch::Receiver<Forwarding>,
    keepers: [Keeper; 2],
}

impl PortMapper {
    /// Starts for the tunnel's port.
    pub fn start(port: u16) -> Option<Self> {
        let port = NonZeroU16::new(port)?;
        let (sender, state) = watch::channel(Forwarding::default());
        let sender = Arc::new(sender);
        let keepers = [Keeper::start::<Lease>(port, sender.clone()), Keeper::start::<Pinhole>(port, sender)];
        Some(Self { state, keepers })
    }

    /// Returns after a change. Cancel safe.
    pub async fn changed(&mut self) {
        if self.state.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// As it is now.
    pub fn state(&self) -> Forwarding {
        self.state.borrow().clone()
    }

    /// The network has changed: the router may be another one.
    pub fn handle_network_change(&self) {
        self.keepers.iter().for_each(|keeper| keeper.again.notify_one());
    }

    /// The device sends IPv6 from another address.
    pub fn handle_ipv6_change(&self) {
        let [_, pinhole] = &self.keepers;
        pinhole.again.notify_one();
    }

    /// Gives back what was given.
    pub async fn close(self) {
        let [forwarding, pinhole] = self.keepers;
        tokio::join!(forwarding.close(), pinhole.close());
    }
}

/// The task that keeps one thing.
#[derive(Debug)]
struct Keeper {
    again: Arc<Notify>,
    stop: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Keeper {
    fn start<T: Held + 'static>(port: NonZeroU16, state: Shared) -> Self {
        let (again, stop) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let task = tokio::spawn(keep::<T>(port, state, again.clone(), stop.clone()));
        Self { again, stop, task }
    }

    async fn close(mut self) {
        self.stop.notify_one();
        if tokio::time::timeout(FAREWELL, &mut self.task).await.is_err() {
            tracing::debug!("the router did not take its lease back in time");
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Keeps it until stopped.
async fn keep<T: Held>(port: NonZeroU16, state: Shared, again: Arc<Notify>, stop: Arc<Notify>) {
    let mut held: Option<T> = None;
    loop {
        held = match held {
            Some(held) => held.renew().await,
            None => None,
        };
        if held.is_none() {
            held = T::obtain(port, &state).await;
        }
        let wait = held.as_ref().map_or(RETRY, |held| held.lifetime() / 2);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.notified() => break,
            () = again.notified() => {
                tokio::time::sleep(CALM).await;
                if let Some(held) = held.take() {
                    let _ = tokio::time::timeout(FAREWELL, held.release()).await;
                }
            }
        }
    }
    if let Some(held) = held {
        held.release().await;
    }
}

/// Asks by all protocols.
async fn forward(port: NonZeroU16) -> (Option<Lease>, Forwarding) {
    let Some((gateway, own)) = neighbours().await else {
        let problem = "this network has no router that could forward a port".to_owned();
        return (
            None,
            Forwarding { by: Some(PortMapping::None), problem: Some(problem), ..Default::default() },
        );
    };
    let Found { lease, protocols, gateway_address } = protocol::ask(gateway, own, port).await;
    let mut forwarding = Forwarding { protocols, gateway_address, ..Default::default() };
    let external = lease.as_ref().and_then(Lease::external);
    let is_public = external.is_some_and(|address| match address.ip() {
        IpAddr::V4(ip) => !crate::netcheck::is_inside(ip),
        IpAddr::V6(_) => true,
    });
    forwarding.external = external.filter(|_| is_public);
    forwarding.by = Some(lease.as_ref().filter(|_| is_public).map_or(PortMapping::None, Lease::by));
    forwarding.problem = (!is_public).then(|| explain(gateway, external, &forwarding.protocols));
    (lease, forwarding)
}

fn explain(gateway: Ipv4Addr, external: Option<SocketAddr>, protocols: &[PortMapping]) -> String {
    match external {
        Some(external) => format!(
            "the router {gateway} forwards a port, but its own address {} is not public: there is another NAT in front \
             of it; ask the provider for a public address or IPv6",
            external.ip()
        ),
        None if protocols.is_empty() => format!(
            "the router {gateway} answers neither UPnP nor NAT-PMP nor PCP; switch on UPnP in its settings"
        ),
        None => format!("the router {gateway} refuses to forward a port; allow it in its UPnP settings"),
    }
}

/// Which protocols the router speaks, without asking it to forward anything.
pub async fn protocols() -> Vec<PortMapping> {
    match neighbours().await {
        Some((gateway, own)) => protocol::spoken(gateway, own).await,
        None => Vec::new(),
    }
}

/// The router, and this device's address towards it.
async fn neighbours() -> Option<(Ipv4Addr, Ipv4Addr)> {
    let gateway = platform::gateway().await.ok()??;
    // connecting a UDP socket sends nothing
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((gateway, crab_nat::GATEWAY_PORT)).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(own) => Some((gateway, own)),
        IpAddr::V6(_) => None,
    }
}
