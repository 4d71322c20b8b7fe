//! Which interfaces the relay's packets come in by, and how the program attaches to them.

use super::host;
use super::netlink::{self, Link};
use super::xdp::{Hook, Program};
use super::{Fallback, Served};
use crate::config::RelayModeChoice;
use lanrage_common::maps::{LOCAL_ADDRESSES, Local};
use lanrage_common::relay::Alternates;
use lanrage_common::wire::{Address, Be16, Family};
use rtnetlink::Handle;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Any public addresses: only the way there matters.
const ANYWHERE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1111)),
];

/// What the relay needs to know about this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    links: HashMap<u32, Link>,
    addresses: Vec<(u32, IpAddr)>,
    /// Of each IP version that has a default route.
    defaults: Vec<u32>,
}

impl Host {
    /// Asks the kernel.
    pub async fn look(handle: &Handle) -> Result<Self, rtnetlink::Error> {
        let mut defaults = Vec::new();
        for anywhere in ANYWHERE {
            let unspecified = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
            defaults.extend(netlink::route(handle, anywhere, unspecified).await?.map(|route| route.ifindex));
        }
        Ok(Self {
            links: netlink::links(handle).await?,
            addresses: netlink::addresses(handle).await?,
            defaults,
        })
    }

    /// The interfaces to attach to: those named; else those with the served addresses, and where all of a family are
    /// served the default routes', or else every Ethernet interface with an address. Frames of a VLAN come in by the
    /// interface below it.
    pub fn choose(&self, names: &[String], served: &Served) -> Result<Vec<&Link>, Fallback> {
        let mut links: Vec<&Link> =
            self.candidates(names, served)?.into_iter().map(|link| self.below(link)).collect();
        links.sort_by_key(|link| link.index);
        links.dedup_by_key(|link| link.index);
        Ok(links)
    }

    fn candidates(&self, names: &[String], served: &Served) -> Result<Vec<&Link>, Fallback> {
        if !names.is_empty() {
            return names.iter().map(|name| self.named(name)).collect();
        }
        let specific = served.specific().map(|address| self.with_address(address));
        let mut links = specific.collect::<Result<Vec<&Link>, Fallback>>()?;
        if served.is_any() {
            links.extend(self.open_to_all()?);
        }
        Ok(links)
    }

    fn open_to_all(&self) -> Result<Vec<&Link>, Fallback> {
        let defaults: Vec<&Link> = self.defaults.iter().filter_map(|index| self.links.get(index)).collect();
        if !defaults.is_empty() {
            return Ok(defaults);
        }
        let links: Vec<&Link> =
            self.links.values().filter(|link| link.up && self.has_address(link)).collect();
        if links.is_empty() {
            return Err(Fallback::new(
                "no Ethernet interface with an IP address is up",
                "bring the interface up, or name it in `relay.interfaces`, then restart",
            ));
        }
        Ok(links)
    }

    fn below<'a>(&'a self, link: &'a Link) -> &'a Link {
        link.vlan.and_then(|(parent, _)| self.links.get(&parent)).unwrap_or(link)
    }

    /// Is there still an interface with that index?
    pub fn exists(&self, index: u32) -> bool {
        self.links.contains_key(&index)
    }

    fn named(&self, name: &String) -> Result<&Link, Fallback> {
        self.links.values().find(|link| link.name == *name).ok_or_else(|| {
            Fallback::new(
                format!("there is no Ethernet interface `{name}`"),
                "correct `relay.interfaces` (see `ip -br link`), then restart",
            )
        })
    }

    fn with_address(&self, listen: IpAddr) -> Result<&Link, Fallback> {
        let owner = self.addresses.iter().find(|(_, address)| *address == listen);
        owner.and_then(|(index, _)| self.links.get(index)).ok_or_else(|| {
            Fallback::new(
                format!("{listen} is on no Ethernet interface"),
                "listen on the address of a network card, or name the interface in `relay.interfaces`, then restart",
            )
        })
    }

    fn has_address(&self, link: &Link) -> bool {
        self.addresses.iter().any(|(index, _)| *index == link.index)
    }

    /// What the program answers to: the served addresses that this host has, those of `first` before others if there are
    /// too many.
    pub fn local(&self, served: &Served, first: &[u32]) -> Local {
        let mut local = Local::default();
        local.ports[0] = Be16::new(served.port());
        let mut addresses: Vec<_> =
            self.addresses.iter().filter(|(_, address)| served.has(*address)).collect();
        addresses.sort_by_key(|(index, _)| !first.contains(index));
        let addresses: Vec<IpAddr> = addresses.into_iter().map(|(_, address)| *address).collect();
        add_addresses(&mut local, &addresses);
        add_alternates(&mut local, served.alternates());
        local
    }
}

/// What the program's answers to Binding requests name as the relay's other address.
fn add_alternates(local: &mut Local, alternates: &Alternates) {
    let Some(ports) = alternates.ports else { return };
    local.pair_ports = ports.map(Be16::new);
    for pair in &alternates.addresses {
        match pair.map(Address::from) {
            pair if pair[0].family() == Family::V4 => local.pair_v4 = pair.map(|address| address.v4_word()),
            pair => local.pair_v6 = pair,
        }
    }
}

/// As many as there is room for, of each IP version.
fn add_addresses(local: &mut Local, addresses: &[IpAddr]) {
    let (v4, v6): (Vec<Address>, Vec<Address>) = addresses
        .iter()
        .map(|address| Address::from(*address))
        .partition(|address| address.family() == Family::V4);
    for have in [v4.len(), v6.len()].into_iter().filter(|have| *have > LOCAL_ADDRESSES) {
        tracing::warn!(
            have,
            used = LOCAL_ADDRESSES,
            "too many addresses: set `relay.listen` to the one that members use, or the daemon forwards for the others"
        );
    }
    local.v4.iter_mut().zip(v4).for_each(|(place, address)| *place = address.v4_word());
    local.v6.iter_mut().zip(v6).for_each(|(place, address)| *place = address);
}

/// Hooks to try, best first.
pub fn hooks(mode: RelayModeChoice) -> &'static [Hook] {
    match mode {
        RelayModeChoice::Auto => &[Hook::Native, Hook::Generic],
        RelayModeChoice::XdpNative => &[Hook::Native],
        RelayModeChoice::XdpGeneric => &[Hook::Generic],
        RelayModeChoice::Userspace => &[],
    }
}

/// Attaches to all of the links at the first hook that all of them accept. With it comes why not a better one.
pub fn attach(
    program: &mut Program,
    links: &[&Link],
    hooks: &[Hook],
) -> Result<(Hook, Option<Fallback>), Fallback> {
    let mut why: Option<Fallback> = None;
    for hook in hooks {
        match attach_all(program, links, *hook) {
            Ok(()) => return Ok((*hook, why)),
            Err(fallback) => {
                tracing::debug!(?hook, reason = fallback.reason, "cannot attach");
                why = Some(match why {
                    Some(first) => {
                        Fallback::new(format!("{}; {}", first.reason, fallback.reason), fallback.fix)
                    }
                    None => fallback,
                });
            }
        }
    }
    Err(why.unwrap_or_else(|| Fallback::new("no XDP mode is allowed", "set `relay.mode = \"auto\"`")))
}

fn attach_all(program: &mut Program, links: &[&Link], hook: Hook) -> Result<(), Fallback> {
    for link in links {
        if let Err(error) = program.attach(link.index, hook) {
            let attached: Vec<u32> = program.attached().collect();
            attached.into_iter().for_each(|index| program.detach(index));
            return Err(refusal(link, hook, &error));
        }
    }
    Ok(())
}

/// Why an interface refused, and what helps.
pub fn refusal(link: &Link, hook: Hook, error: &io::Error) -> Fallback {
    let name = &link.name;
    let driver = if link.veth { Some("veth".to_owned()) } else { host::interface::card_driver(name) };
    let fix = host::refusal::fix(name, link.mtu, driver.as_deref(), hook, error.raw_os_error());
    let hook = match hook {
        Hook::Native => "native XDP",
        Hook::Generic => "generic XDP",
    };
    Fallback::new(format!("{name} refused {hook}: {error}"), fix)
}
