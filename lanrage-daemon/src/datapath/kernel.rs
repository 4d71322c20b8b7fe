//! The kernel side of an open data path: program, table and the ways that fill it.

use super::interfaces::{self, Host};
use super::netlink::Link;
use super::pins::{Leftovers, Pins};
use super::policy::Policy;
use super::table::{self, Maps as _, Table};
use super::ways::{self, Change, Ways};
use super::xdp::{Hook, LoadError, Program};
use super::{Adopted, Fallback, InstallError, Report, Served};
use crate::config::{RelayConfig, RelayModeChoice};
use lanrage_common::api::RelayMode;
use lanrage_common::maps::{Counter, Event, Local, MemberCounter, NextHop};
use lanrage_common::reason::Reason;
use lanrage_common::relay::{Flow, MemberLimits, Target};
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::path::Path;

/// Flows that follow a change of ways in a row.
const SLICE: usize = 1024;

/// An attached program.
#[derive(Debug)]
pub struct Kernel {
    program: Program,
    table: Table,
    policy: Policy,
    /// What the program was told last.
    local: Local,
    ways: Ways,
    /// Where to attach; `None` once nothing that the configuration allows works here.
    hook: Option<Hook>,
    /// Why not a better hook.
    compromise: Option<Fallback>,
    served: Served,
    names: Vec<String>,
    mode: RelayModeChoice,
    watch: SendWatch,
}

impl Kernel {
    /// Loads and attaches the program, or says why that does not work here. Pinned, it begins with what is left over.
    pub async fn open(
        config: &RelayConfig,
        served: Served,
        kept: Option<&Kept>,
    ) -> Result<(Self, Report), Fallback> {
        if config.mode == RelayModeChoice::Userspace {
            return Err(Fallback::new("the configuration asks for userspace", "set `relay.mode = \"auto\"`"));
        }
        let mut program = load(config, kept).map_err(load_fallback)?;
        program.put_next_hop(0, NextHop::default()).map_err(map_fallback)?;
        let handle = ways::handle().map_err(netlink_fallback)?;
        let host = Host::look(&handle).await.map_err(netlink_fallback)?;
        let links = host.choose(&config.interfaces, &served)?;
        let indexes: Vec<u32> = links.iter().map(|link| link.index).collect();
        let policy = Policy::new(config);
        let local = policy.local(&host, &served, &links);
        program.set_local(local).map_err(map_fallback)?;
        let (hook, why) = attach(&mut program, &links, config.mode, kept)?;
        program.tidy();
        let egress: HashSet<u32> = indexes.into_iter().collect();
        let ways = Ways::start(egress).map_err(netlink_fallback)?;
        let names: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
        tracing::info!(
            ?hook,
            interfaces = names.join(","),
            flows = config.max_flows,
            "kernel program attached"
        );
        let report = report(mode(hook), why.clone());
        let table = Table::default();
        let (names, mode) = (config.interfaces.clone(), config.mode);
        let (hook, compromise, watch) = (Some(hook), why, SendWatch::default());
        let kernel =
            Self { program, table, policy, local, ways, hook, compromise, served, names, mode, watch };
        Ok((kernel, report))
    }

    /// Goes on with the flows that are in its maps. To be called before anything else.
    pub fn take_over(&mut self, Kept { leftovers, .. }: &Kept) {
        self.table.adopt(&mut self.program, leftovers.flows(), &leftovers.next_hops);
        self.pass_watches();
    }

    /// Makes the kernel forward a flow, or moves it to a new target.
    pub fn install(&mut self, flow: Flow, target: Target) -> Result<(), InstallError> {
        let installed = self.table.install(&mut self.program, flow, target);
        self.pass_watches();
        installed
    }

    /// Gives a flow back to the daemon.
    pub fn remove(&mut self, flow: Flow) {
        self.table.remove(&mut self.program, flow);
        self.pass_watches();
    }

    /// Keeps what the relay server remembers of a binding; empty = nothing.
    pub fn keep_record(&mut self, slot: u32, record: &[u8]) -> Result<(), InstallError> {
        self.program.put_record(slot, record)
    }

    /// A member is bound at that address.
    pub fn admit(&mut self, slot: u32, address: SocketAddr, limits: MemberLimits) {
        self.policy.admit(&mut self.program, slot, address, limits);
    }

    /// Nobody is bound at that address any more.
    pub fn dismiss(&mut self, address: SocketAddr) {
        self.policy.dismiss(&mut self.program, address);
    }

    /// Everybody who is bound has been admitted: strangers are dropped from now on.
    pub fn enforce(&mut self) {
        self.policy.enforce(&mut self.program);
        self.local.flags |= Local::STRICT;
        if let Err(error) = self.program.set_local(self.local) {
            tracing::warn!(%error, "the kernel program goes on passing up what strangers send");
        }
    }

    /// Samples of what was not forwarded, for whoever looks into why.
    fn log_events(&mut self) {
        for event in self.program.events() {
            let reason = Reason::ALL.get(event.reason as usize).map_or("unknown", |reason| reason.name());
            let source = SocketAddr::new(event.source.into(), event.source_port.value());
            let Event { ifindex, length, kind, member, .. } = event;
            tracing::debug!(reason, %source, ifindex, length, kind, member, "not forwarded (a sample)");
        }
    }

    fn pass_watches(&mut self) {
        self.table.take_watches().into_iter().for_each(|watch| self.ways.watch(watch));
    }

    /// Has some of the flows follow whose way has changed. Takes a few milliseconds at most.
    pub fn catch_up(&mut self) {
        for (flow, error) in self.table.catch_up(&mut self.program, SLICE) {
            tracing::warn!(?flow, %error, "the daemon forwards a flow that the kernel dropped");
        }
    }

    /// Waits for a change and puts it into the kernel; meanwhile flows follow earlier ones, bit by bit. Cancel safe.
    pub async fn maintain(&mut self, report: &mut Report) {
        let change = loop {
            tokio::select! {
                biased;
                change = self.ways.changed() => break change,
                // not at once: whatever else the caller waits for comes first
                () = tokio::task::yield_now(), if self.table.is_behind() => self.catch_up(),
            }
        };
        match change {
            Change::Way(ends, way) => {
                self.table.set_way(&mut self.program, ends, way);
                self.catch_up();
            }
            Change::Interfaces(host) => {
                self.log_events();
                self.adapt(&host, report);
            }
            Change::Sent(sent) => {
                if self.hook == Some(Hook::Native) && self.watch.is_losing(self.program.forwarded(), sent) {
                    self.step_down(report);
                }
            }
        }
    }

    /// What the program sends does not leave: the network stack can send it instead, or the daemon.
    fn step_down(&mut self, report: &mut Report) {
        let before: Vec<u32> = self.program.attached().collect();
        before.iter().for_each(|index| self.program.detach(*index));
        let (hook, otherwise) = match self.mode {
            RelayModeChoice::Auto => (Some(Hook::Generic), "stay with generic XDP"),
            _ => (None, "set `relay.mode = \"auto\"`"),
        };
        self.hook = hook;
        self.compromise = Some(Fallback::new(
            "packets sent by native XDP do not arrive: the other end of this veth has no XDP program",
            format!(
                "attach one there (`ip link set dev PEER xdp obj xdp-pass sec xdp`) and restart, or {otherwise}"
            ),
        ));
        let mut problem = None;
        for (index, hook) in before.into_iter().zip(hook.into_iter().cycle()) {
            if let Err(error) = self.program.attach(index, hook) {
                problem = Some(Fallback::new(
                    format!("interface number {index} refused generic XDP: {error}"),
                    "see the kernel log (`dmesg`); the daemon forwards and tries again",
                ));
            }
        }
        self.egress_changed();
        self.tell(problem, report);
    }

    /// Follows changed addresses, and attaches again to an interface that went away and came back.
    fn adapt(&mut self, host: &Host, report: &mut Report) {
        let before: Vec<u32> = self.program.attached().collect();
        for index in before.iter().filter(|index| !host.exists(**index)) {
            self.program.detach(*index);
        }
        let problem = match host.choose(&self.names, &self.served) {
            Ok(links) => self.attach_missing(host, &links),
            Err(fallback) => Some(fallback),
        };
        if !self.program.attached().eq(before) {
            self.egress_changed();
        }
        self.tell(problem, report);
    }

    fn attach_missing(&mut self, host: &Host, links: &[&Link]) -> Option<Fallback> {
        self.local = self.policy.local(host, &self.served, links);
        if let Err(error) = self.program.set_local(self.local) {
            tracing::warn!(%error, "cannot tell the kernel program its addresses");
        }
        let hook = self.hook?;
        let attached: HashSet<u32> = self.program.attached().collect();
        let mut problem = None;
        for link in links.iter().filter(|link| !attached.contains(&link.index)) {
            match self.program.attach(link.index, hook) {
                Ok(()) => tracing::info!(interface = link.name, ?hook, "kernel program attached again"),
                Err(error) => problem = Some(interfaces::refusal(link, hook, &error)),
            }
        }
        problem
    }

    fn egress_changed(&mut self) {
        self.watch = SendWatch::default();
        self.ways.set_egress(self.program.attached().collect());
    }

    /// Reports what is attached now, with what is wrong or else why it is not better.
    fn tell(&self, problem: Option<Fallback>, told: &mut Report) {
        let attached = self.program.attached().next().and(self.hook);
        let mut now =
            report(attached.map_or(RelayMode::Userspace, mode), problem.or_else(|| self.compromise.clone()));
        now.unpinned.clone_from(&told.unpinned);
        if now == *told {
            return;
        }
        match (&now.reason, &now.fix) {
            (Some(reason), Some(fix)) => {
                tracing::warn!(mode = ?now.mode, reason, fix, "the relay does not forward as well as it could");
            }
            _ => tracing::info!(mode = ?now.mode, "the relay forwards as well as it can"),
        }
        *told = now;
    }

    /// Packets by reason.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let reasons = self.program.reasons().into_iter();
        reasons.map(|(reason, counter)| (reason.name().to_owned(), counter.packets)).collect()
    }

    /// Frames and bytes by reason.
    pub fn reasons(&self) -> Vec<(Reason, Counter)> {
        self.program.reasons()
    }

    /// Frames forwarded for a member.
    pub fn member(&self, slot: u32) -> MemberCounter {
        self.program.member(slot)
    }

    /// Destinations of flows to which no way is known.
    pub fn unresolved(&self) -> usize {
        self.table.unresolved()
    }

    /// Packets sent on.
    pub fn forwarded(&self) -> u64 {
        self.program.forwarded()
    }
}

/// What an earlier daemon's relay left in bpffs.
#[derive(Debug)]
pub struct Kept {
    pins: Pins,
    leftovers: Leftovers,
}

impl Kept {
    /// Looks into the directory, which is made if need be; or says why links and maps cannot be kept there.
    pub fn open(config: &RelayConfig, directory: &Path) -> Result<Self, Fallback> {
        let pins = Pins::open(directory)?;
        let shapes = Program::shapes(config.max_flows).map_err(load_fallback)?;
        let leftovers = pins.leftovers(&shapes);
        Ok(Self { pins, leftovers })
    }

    /// What a daemon begins with.
    pub fn adopted(mut self) -> Adopted {
        self.leftovers.complete();
        let records =
            self.leftovers.records.iter().filter_map(|(slot, record)| {
                Some((*slot, record.bytes.get(..record.length as usize)?.to_vec()))
            });
        Adopted { records: records.collect(), kept: Some(self) }
    }

    /// Flows that the maps hold.
    pub fn flows(&self) -> impl Iterator<Item = (Flow, Target)> {
        let (next_hops, clock) = (&self.leftovers.next_hops, table::Clock::read());
        self.leftovers.flows().map(move |(key, value)| table::restore(key, value, next_hops, clock))
    }

    /// Detaches everything that was kept and forgets it.
    pub fn remove(directory: &Path) -> io::Result<()> {
        Pins::remove(directory)
    }

    /// Where all of the interfaces are attached already.
    fn hook(&self, links: &[&Link]) -> Option<Hook> {
        let attached = self.pins.links();
        let at = |hook| links.iter().all(|link| attached.contains(&(link.index, hook)));
        [Hook::Native, Hook::Generic].into_iter().find(|hook| at(*hook))
    }
}

fn load(config: &RelayConfig, kept: Option<&Kept>) -> Result<Program, LoadError> {
    match kept {
        Some(Kept { pins, leftovers }) => {
            Program::load_pinned(config.max_flows, pins, leftovers.set.as_ref())
        }
        None => Program::load(config.max_flows),
    }
}

/// Attaches at the best hook; but where an earlier daemon's program is, there it stays, because a change of hook would
/// leave a moment without a program.
fn attach(
    program: &mut Program,
    links: &[&Link],
    mode: RelayModeChoice,
    kept: Option<&Kept>,
) -> Result<(Hook, Option<Fallback>), Fallback> {
    let allowed = interfaces::hooks(mode);
    let hook = kept.and_then(|kept| kept.hook(links)).filter(|hook| allowed.contains(hook));
    if let Some(hook) = hook
        && interfaces::attach(program, links, &[hook]).is_ok()
    {
        let better = allowed.first().is_some_and(|best| *best != hook);
        return Ok((hook, better.then(stays_generic)));
    }
    interfaces::attach(program, links, allowed)
}

fn stays_generic() -> Fallback {
    Fallback::new(
        "generic XDP was in use before the daemon started again, and stays so that no packet is lost",
        "to try native XDP again: stop the relay, run `lanrage-daemon relay --detach`, and start it",
    )
}

/// Compares what the program sent with what the interfaces sent.
#[derive(Debug, Default)]
struct SendWatch {
    /// Sent by the program and by the interfaces, at the last look at the same interfaces.
    last: Option<(u64, u64)>,
    suspicions: u32,
}

impl SendWatch {
    /// Fewer packets since the last look say nothing.
    const ENOUGH: u64 = 20;

    /// Whether the interfaces sent less than half of what the program did, twice in a row: the two counts are not taken
    /// at the same moment. A count of the program that went back could not be read, and says nothing.
    fn is_losing(&mut self, forwarded: u64, sent: u64) -> bool {
        let last = self.last.unwrap_or((forwarded, sent));
        let Some(by_program) = forwarded.checked_sub(last.0) else { return false };
        let by_interfaces = sent.saturating_sub(last.1);
        self.last = Some((forwarded, sent));
        if by_program >= Self::ENOUGH {
            self.suspicions = if by_interfaces < by_program / 2 { self.suspicions + 1 } else { 0 };
        }
        self.suspicions >= 2
    }
}

fn report(mode: RelayMode, why: Option<Fallback>) -> Report {
    let (reason, fix) = why.map(|why| (why.reason, why.fix)).unzip();
    Report { mode, reason, fix, unpinned: None }
}

fn mode(hook: Hook) -> RelayMode {
    match hook {
        Hook::Native => RelayMode::XdpNative,
        Hook::Generic => RelayMode::XdpGeneric,
    }
}

fn load_fallback(error: LoadError) -> Fallback {
    Fallback::new(error.to_string(), error.fix("5.15"))
}

fn map_fallback(error: InstallError) -> Fallback {
    Fallback::new(error.to_string(), "please report this")
}

fn netlink_fallback(error: impl std::fmt::Display) -> Fallback {
    Fallback::new(
        format!("cannot read routes and neighbours: {error}"),
        "allow AF_NETLINK sockets (systemd: RestrictAddressFamilies), then restart",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_believed_the_second_time_and_an_unreadable_count_is_not() {
        let mut watch = SendWatch::default();
        assert!(!watch.is_losing(1000, 10), "only a baseline");
        assert!(!watch.is_losing(1100, 110));
        assert!(!watch.is_losing(0, 120), "the map could not be read");
        assert!(!watch.is_losing(1200, 210));
        assert!(!watch.is_losing(1300, 215), "the first time");
        assert!(watch.is_losing(1400, 220));
    }
}
