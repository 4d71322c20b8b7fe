//! A task that keeps the ways to the relay's destinations up to date and tells every change.
//!
//! It looks again when the kernel announces a change of routes, links, addresses or a neighbour that matters, and every
//! few seconds anyway. Neighbours that the kernel has not heard of lately are checked by it on our behalf, because
//! packets forwarded in XDP do not count as a sign of life.

use super::interfaces::Host;
use super::netlink::{self, Link, Neighbour};
use super::table::{Ends, Watch};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use lanrage_common::maps::NextHop;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::{Handle, MulticastGroup};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Nothing is believed for longer than this without looking.
const REFRESH: Duration = Duration::from_secs(5);
/// While some neighbour is unresolved.
const RETRY: Duration = Duration::from_millis(500);
/// Announcements come in bursts; they are answered together.
const SETTLE: Duration = Duration::from_millis(20);

/// What the task tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The way to a destination is now this one, or not known.
    Way(Ends, Option<NextHop>),
    /// Links and addresses as they are now; they may have changed.
    Interfaces(Box<Host>),
    /// Packets that the egress interfaces have sent in all; told only when all of them are veth.
    Sent(u64),
}

/// Connection to a running task, which ends with it.
#[derive(Debug)]
pub struct Ways {
    commands: mpsc::UnboundedSender<Command>,
    changes: mpsc::UnboundedReceiver<Change>,
    task: AbortHandle,
}

#[derive(Debug)]
enum Command {
    Watch(Watch),
    Egress(HashSet<u32>),
}

impl Ways {
    /// Starts the task. Ways lead out of the `egress` interfaces only.
    pub fn start(egress: HashSet<u32>) -> io::Result<Self> {
        let (handle, announcements) = connect()?;
        let (commands, inbox) = mpsc::unbounded_channel();
        let (outbox, changes) = mpsc::unbounded_channel();
        let task = Task {
            handle,
            egress,
            known: BTreeMap::new(),
            look_at_host: Instant::now() + REFRESH,
            neighbours: HashSet::new(),
            outbox,
        };
        let task = tokio::spawn(task.run(inbox, announcements)).abort_handle();
        Ok(Self { commands, changes, task })
    }

    /// Begins or ends looking after a destination.
    pub fn watch(&self, watch: Watch) {
        // The task ends only with `self`.
        let _ = self.commands.send(Command::Watch(watch));
    }

    /// Ways lead out of these interfaces only, from now on.
    pub fn set_egress(&self, egress: HashSet<u32>) {
        let _ = self.commands.send(Command::Egress(egress));
    }

    /// The next change. Cancel safe.
    pub async fn changed(&mut self) -> Change {
        match self.changes.recv().await {
            Some(change) => change,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Ways {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A netlink connection for single questions.
pub fn handle() -> io::Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    Ok(handle)
}

type Announcements = BoxStream<'static, RouteNetlinkMessage>;

fn connect() -> io::Result<(Handle, Announcements)> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Neigh,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv4Rule,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv6Route,
        MulticastGroup::Ipv6Rule,
    ];
    let (connection, _, announcements) = rtnetlink::new_multicast_connection(&groups)?;
    tokio::spawn(connection);
    let announcements =
        announcements.filter_map(|(message, _): (NetlinkMessage<RouteNetlinkMessage>, _)| async {
            match message.payload {
                NetlinkPayload::InnerMessage(message) => Some(message),
                _ => None,
            }
        });
    // Questions have their own connection: an overrun by announcements must not lose an answer.
    Ok((handle()?, announcements.boxed()))
}

struct Task {
    handle: Handle,
    egress: HashSet<u32>,
    /// Watched destinations with the way last told; `None` outside = nothing told yet.
    known: BTreeMap<Ends, Option<Option<NextHop>>>,
    /// When links and addresses are looked at again; in the past once they changed, until a look succeeds.
    look_at_host: Instant,
    /// Neighbours on the way to them.
    neighbours: HashSet<IpAddr>,
    outbox: mpsc::UnboundedSender<Change>,
}

/// One look at everything that ways are made of.
struct Snapshot {
    links: HashMap<u32, Link>,
    neighbours: HashMap<(u32, IpAddr), Neighbour>,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Command>, mut announcements: Announcements) {
        let mut next = Instant::now() + REFRESH;
        loop {
            tokio::select! {
                command = inbox.recv() => {
                    let Some(command) = command else { return };
                    self.obey(command);
                    while let Ok(command) = inbox.try_recv() {
                        self.obey(command);
                    }
                    next = Instant::now();
                }
                Some(message) = announcements.next() => {
                    if self.matters(&message) {
                        next = next.min(Instant::now() + SETTLE);
                    }
                }
                () = tokio::time::sleep_until(next) => next = Instant::now() + self.refresh().await,
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Watch(Watch::Begin(destination)) => {
                self.known.insert(destination, None);
            }
            Command::Watch(Watch::End(destination)) => {
                self.known.remove(&destination);
            }
            Command::Egress(egress) => self.egress = egress,
        }
    }

    fn matters(&mut self, message: &RouteNetlinkMessage) -> bool {
        use RouteNetlinkMessage as M;
        match message {
            M::NewNeighbour(message) | M::DelNeighbour(message) => {
                netlink::neighbour_address(message).is_some_and(|address| self.neighbours.contains(&address))
            }
            M::NewLink(_) | M::DelLink(_) | M::NewAddress(_) | M::DelAddress(_) => {
                self.look_at_host = Instant::now();
                true
            }
            _ => true,
        }
    }

    /// Looks up every watched destination; gives the time until the next look.
    async fn refresh(&mut self) -> Duration {
        match self.try_refresh().await {
            Ok(true) => REFRESH,
            Ok(false) => RETRY,
            Err(error) => {
                tracing::warn!(%error, "cannot read routes and neighbours; the kernel keeps forwarding as before");
                RETRY
            }
        }
    }

    async fn try_refresh(&mut self) -> Result<bool, rtnetlink::Error> {
        if self.look_at_host <= Instant::now() {
            let host = Host::look(&self.handle).await?;
            self.look_at_host = Instant::now() + REFRESH;
            let _ = self.outbox.send(Change::Interfaces(Box::new(host)));
        }
        if self.known.is_empty() {
            return Ok(true);
        }
        let snapshot = Snapshot {
            links: netlink::links(&self.handle).await?,
            neighbours: netlink::neighbours(&self.handle).await?,
        };
        self.tell_sent(&snapshot);
        self.neighbours.clear();
        let mut unresolved = HashSet::new();
        for destination in self.known.keys().copied().collect::<Vec<_>>() {
            let way = self.look_up(&snapshot, destination, &mut unresolved).await?;
            self.tell(destination, way);
        }
        let missing = unresolved.iter().any(|neighbour| !snapshot.neighbours.contains_key(neighbour));
        for (ifindex, neighbour) in unresolved {
            if let Err(error) = netlink::resolve(&self.handle, ifindex, neighbour).await {
                tracing::debug!(%error, %neighbour, "cannot ask the kernel to resolve a neighbour");
            }
        }
        Ok(!missing)
    }

    async fn look_up(
        &mut self,
        snapshot: &Snapshot,
        ends: Ends,
        unresolved: &mut HashSet<(u32, IpAddr)>,
    ) -> Result<Option<NextHop>, rtnetlink::Error> {
        let Some(route) = netlink::route(&self.handle, ends.remote, ends.local).await? else {
            return Ok(None);
        };
        let Some(link) = snapshot.links.get(&route.ifindex) else { return Ok(None) };
        let (egress, vlan) = link.vlan.unwrap_or((link.index, 0));
        if !link.up || !self.egress.contains(&egress) {
            return Ok(None);
        }
        self.neighbours.insert(route.neighbour);
        let neighbour = snapshot.neighbours.get(&(link.index, route.neighbour));
        if !neighbour.is_some_and(|neighbour| neighbour.fresh) {
            unresolved.insert((link.index, route.neighbour));
        }
        let mtu = route.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu));
        Ok(neighbour.map(|neighbour| NextHop {
            vlan,
            ..NextHop::new(egress, mtu, neighbour.mac, link.mac, route.source.into())
        }))
    }

    /// Only veth is known to count what XDP sends in every kernel.
    fn tell_sent(&self, snapshot: &Snapshot) {
        let links = self.egress.iter().map(|index| snapshot.links.get(index).filter(|link| link.veth));
        if let Some(sent) = links.map(|link| link.map(|link| link.sent)).sum::<Option<u64>>() {
            let _ = self.outbox.send(Change::Sent(sent));
        }
    }

    fn tell(&mut self, ends: Ends, way: Option<NextHop>) {
        if let Some(told) = self.known.get_mut(&ends)
            && *told != Some(way)
        {
            tracing::debug!(?ends, ?way, "way changed");
            *told = Some(way);
            let _ = self.outbox.send(Change::Way(ends, way));
        }
    }
}
