//! Who listens on this machine, from the system's tables.

use super::port::{Port, Transport};
use super::verdict::Account;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// State of a TCP socket that listens.
const TCP_LISTEN: &str = "0A";

/// A socket that takes what others send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// Where it listens.
    pub port: Port,
    /// Whose program it is.
    pub account: Account,
    /// The kernel's number for it.
    pub inode: u64,
}

/// Listening sockets in what Linux's `/proc/net/tcp`, `tcp6`, `udp` or `udp6` holds, those that only this machine
/// reaches left out. Lines that are not understood are passed over.
pub fn listeners(table: &str, transport: Transport) -> impl Iterator<Item = Listener> + '_ {
    table.lines().filter_map(move |line| listener(line, transport))
}

/// `  10: 0201A8C0:17E0 00000000:0000 07 00000000:00000000 00:00000000 00000000  1000  0 12345 …`
fn listener(line: &str, transport: Transport) -> Option<Listener> {
    let mut fields = line.split_whitespace();
    let (address, number) = fields.nth(1)?.split_once(':')?;
    let state = fields.nth(1)?;
    if transport == Transport::Tcp && state != TCP_LISTEN {
        return None;
    }
    let number = u16::from_str_radix(number, 16).ok()?;
    let account = Account(fields.nth(3)?.parse().ok()?);
    let inode = fields.nth(1)?.parse().ok()?;
    let is_reached = !local_address(address)?.is_loopback();
    is_reached.then_some(Listener { port: Port { transport, number }, account, inode })
}

/// Words as the kernel's processor reads them.
fn local_address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(text.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let octets: [u8; 16] = [word(0)?, word(8)?, word(16)?, word(24)?].concat().try_into().ok()?;
            Some(Ipv6Addr::from(octets).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
        \x20  0: 00000000:63DD 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0 100 0 0 10 0\n\
        \x20  1: 0100007F:0277 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0\n\
        \x20  2: 0265A8C0:C001 0265A8C0:0050 01 00000000:00000000 00:00000000 00000000  1000        0 4713 1 0 100 0 0 10 0\n";
    const TCP6: &str = "  sl  local_address\n\
        \x20  0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 0:0 00:0 0     0        0 4714 1\n\
        \x20  1: 00000000000000000000000001000000:0017 00000000000000000000000000000000:0000 0A 0:0 00:0 0     0        0 4715 1\n\
        \x20  2: 0000000000000000FFFF00000100007F:0018 00000000000000000000000000000000:0000 0A 0:0 00:0 0     0        0 4716 1\n";

    fn port(number: u16) -> Port {
        Port { transport: Transport::Tcp, number }
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn listeners_that_others_reach_are_found() {
        let found: Vec<_> = listeners(TCP, Transport::Tcp).collect();
        assert_eq!(found, [Listener { port: port(25565), account: Account(1000), inode: 4711 }]);
        let found: Vec<_> = listeners(TCP6, Transport::Tcp).collect();
        assert_eq!(found, [Listener { port: port(22), account: Account(0), inode: 4714 }]);
        let udp = TCP.replace(" 0A ", " 07 ");
        assert_eq!(listeners(&udp, Transport::Udp).count(), 2, "UDP has no state of its own");
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(\\PC|[ \t\n:0-9A-F]){0,200}") {
            let _ = listeners(&text, Transport::Tcp).chain(listeners(&text, Transport::Udp)).count();
        }
    }
}
