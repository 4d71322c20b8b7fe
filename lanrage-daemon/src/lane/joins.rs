//! Join repair: a game that joined a group before the party was there joined it on another network, and Linux then
//! delivers the group's packets from the party's interface only if somebody has joined it there. The daemon does.

use lanrage_common::lane::{Service, joined, joined_groups};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

/// How often the kernel's table is read.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// Groups at most: games use one or two.
const MAX_GROUPS: usize = 64;

/// Groups that are joined on the party's interface, each by a socket that receives nothing.
#[derive(Debug, Default)]
pub struct Joins {
    index: u32,
    sockets: BTreeMap<Ipv4Addr, UdpSocket>,
}

impl Joins {
    /// Joins on the interface with that name and number what is joined elsewhere, and leaves what is not any more. Groups of
    /// `services` count. Gives what is joined on this machine by now, where that is known.
    pub fn follow(&mut self, interface: &str, index: u32, services: &[Service]) -> Option<BTreeSet<IpAddr>> {
        let table = std::fs::read_to_string("/proc/net/igmp").ok()?;
        if self.index != index {
            *self = Self { index, ..Self::default() };
        }
        let wanted = joined(&table, &["lo", interface], services);
        let wanted: Vec<Ipv4Addr> = wanted.into_iter().take(MAX_GROUPS).collect();
        self.sockets.retain(|group, _| wanted.contains(group));
        for group in wanted {
            if self.sockets.contains_key(&group) {
                continue;
            }
            match join(group, index) {
                Ok(socket) => {
                    tracing::debug!(%group, "joined for a game that has joined elsewhere");
                    self.sockets.insert(group, socket);
                }
                Err(error) => tracing::debug!(%group, %error, "cannot join a group for a game"),
            }
        }
        // without IPv6 nothing is joined there
        let table6 = std::fs::read_to_string("/proc/net/igmp6").unwrap_or_default();
        Some(joined_groups(&table, &table6))
    }
}

fn join(group: Ipv4Addr, index: u32) -> std::io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let interface = socket2::InterfaceIndexOrAddress::Index(index);
    socket2::SockRef::from(&socket).join_multicast_v4_n(&group, &interface)?;
    Ok(socket)
}
