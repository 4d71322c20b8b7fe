//! Who listens on this machine. Only Linux has these tables; elsewhere it is not known.

use lanrage_common::lane::Sockets;
use std::fs::read_to_string;

/// The tables as they are now; none where there are none.
pub fn sockets() -> Option<Sockets> {
    let udp = read_to_string("/proc/net/udp").ok()?;
    let table = |path| read_to_string(path).unwrap_or_default();
    Some(Sockets::parse(&udp, &table("/proc/net/udp6"), &table("/proc/net/igmp")))
}
