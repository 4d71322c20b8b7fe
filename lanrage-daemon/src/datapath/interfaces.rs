//! Which interfaces the relay's packets come in by, and how the program attaches to them.

use super::Fallback;
use super::host;
use super::netlink::{self, Link};
use super::xdp::{Hook, Program};
use crate::config::RelayModeChoice;
use lanrage_common::maps::{LOCAL_ADDRESSES, Local};
use lanrage_common::wire::{Be16, Be32};
use rtnetlink::Handle;
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

/// Any public address: only the way there matters.
const ANYWHERE: Ipv4Addr = Ipv4Addr::new(1, 1, 1, 1);

/// What the relay needs to know about this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    links: HashMap<u32, Link>,
    addresses: Vec<(u32, Ipv4Addr)>,
    default: Option<u32>,
}

impl Host {
    /// Asks the kernel.
    pub async fn look(handle: &Handle) -> Result<Self, rtnetlink::Error> {
        let default = netlink::route(handle, ANYWHERE, Ipv4Addr::UNSPECIFIED).await?;
        Ok(Self {
            links: netlink::links(handle).await?,
            addresses: netlink::addresses(handle).await?,
            default: default.map(|route| route.ifindex),
        })
    }

    /// The interfaces to attach to: those named; else the one with the listen address; else the default route's; else
    /// every Ethernet interface with an IPv4 address.
    pub fn choose(&self, names: &[String], listen: Ipv4Addr) -> Result<Vec<&Link>, Fallback> {
        if !names.is_empty() {
            return names.iter().map(|name| self.named(name)).collect();
        }
        if !listen.is_unspecified() {
            return self.with_address(listen).map(|link| vec![link]);
        }
        if let Some(link) = self.default.and_then(|index| self.links.get(&index)) {
            return Ok(vec![link]);
        }
        let mut links: Vec<&Link> =
            self.links.values().filter(|link| link.up && self.has_address(link)).collect();
        links.sort_by_key(|link| link.index);
        if links.is_empty() {
            return Err(Fallback::new(
                "no Ethernet interface with an IPv4 address is up",
                "bring the interface up, or name it in `relay.interfaces`, then restart",
            ));
        }
        Ok(links)
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

    fn with_address(&self, listen: Ipv4Addr) -> Result<&Link, Fallback> {
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

    /// What the program answers to: the listen address, or all of this host's when it is unspecified, those of `first`
    /// before others if there are too many.
    pub fn local(&self, listen: SocketAddrV4, first: &[u32]) -> Local {
        let mut local = Local::default();
        local.ports[0] = Be16::new(listen.port());
        if !listen.ip().is_unspecified() {
            local.addresses[0] = Be32::from_octets(listen.ip().octets());
            return local;
        }
        let mut addresses: Vec<_> =
            self.addresses.iter().filter(|(_, address)| !address.is_loopback()).collect();
        addresses.sort_by_key(|(index, _)| !first.contains(index));
        if addresses.len() > LOCAL_ADDRESSES {
            tracing::warn!(
                have = addresses.len(),
                used = LOCAL_ADDRESSES,
                "too many addresses: set `relay.listen` to the one that members use, or the daemon forwards for the others"
            );
        }
        for (place, (_, address)) in local.addresses.iter_mut().zip(addresses) {
            *place = Be32::from_octets(address.octets());
        }
        local
    }
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
