//! ARP for IPv4 over Ethernet (RFC 826), and the questions of RFC 5227 about addresses that may be taken.

use std::net::Ipv4Addr;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// Everybody on an Ethernet.
pub const EVERYBODY: Mac = [0xff; 6];
pub(super) const ETHERNET_LEN: usize = 14;
const ETHERTYPE: u16 = 0x0806;
const ARP_LEN: usize = 28;
/// By this gateways of a party know each other.
const MARK: [u8; 10] = *b"LANrage gw";
/// Ethernet, IPv4, and the lengths of their addresses.
const KINDS: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// An ARP message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arp {
    pub(super) is_request: bool,
    pub(super) sender: Mac,
    /// Unspecified in a probe.
    pub(super) sender_ip: Ipv4Addr,
    pub(super) target_ip: Ipv4Addr,
}

impl Arp {
    /// Of a whole frame; none when it is something else, or malformed.
    pub(super) fn parse(frame: &[u8]) -> Option<Self> {
        let message = frame.get(ETHERNET_LEN..ETHERNET_LEN + ARP_LEN)?;
        if frame[12..14] != ETHERTYPE.to_be_bytes() || message[..6] != KINDS {
            return None;
        }
        let is_request = match message[6..8] {
            [0, 1] => true,
            [0, 2] => false,
            _ => return None,
        };
        let ip = |at: usize| Ipv4Addr::from([0, 1, 2, 3].map(|byte| message[at + byte]));
        let sender: Mac = message[8..14].try_into().ok()?;
        Some(Self { is_request, sender, sender_ip: ip(14), target_ip: ip(24) })
    }

    /// Whether somebody asks if an address is free.
    pub(super) fn is_probe(&self) -> bool {
        self.is_request && self.sender_ip.is_unspecified()
    }
}

/// Asks whether anybody has `ip` (RFC 5227, section 2.1.1).
pub(super) fn probe(from: Mac, ip: Ipv4Addr) -> Vec<u8> {
    frame(EVERYBODY, 1, (from, Ipv4Addr::UNSPECIFIED), ([0; 6], ip))
}

/// Says that `from` has `ip` from now on (RFC 5227, section 2.3).
pub(super) fn announcement(from: Mac, ip: Ipv4Addr) -> Vec<u8> {
    frame(EVERYBODY, 1, (from, ip), ([0; 6], ip))
}

/// The same, with [`MARK`] where Ethernet's padding would be.
pub(super) fn gateway_announcement(from: Mac, ip: Ipv4Addr) -> Vec<u8> {
    let mut frame = announcement(from, ip);
    frame.extend_from_slice(&MARK);
    frame
}

/// Whether a frame is a [`gateway_announcement`].
pub(super) fn is_of_gateway(frame: &[u8]) -> bool {
    frame.get(ETHERNET_LEN + ARP_LEN..).is_some_and(|padding| padding.starts_with(&MARK))
}

/// Asks who has `ip`.
pub(super) fn request(from: Mac, own: Ipv4Addr, ip: Ipv4Addr) -> Vec<u8> {
    frame(EVERYBODY, 1, (from, own), ([0; 6], ip))
}

/// Answers a request.
pub(super) fn reply(from: Mac, ip: Ipv4Addr, to: &Arp) -> Vec<u8> {
    frame(to.sender, 2, (from, ip), (to.sender, to.sender_ip))
}

fn frame(to: Mac, operation: u16, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let mut frame = ethernet(to, sender.0, ETHERTYPE);
    frame.extend_from_slice(&KINDS);
    frame.extend_from_slice(&operation.to_be_bytes());
    for (mac, ip) in [sender, target] {
        frame.extend_from_slice(&mac);
        frame.extend_from_slice(&ip.octets());
    }
    frame
}

/// The beginning of a frame.
pub(super) fn ethernet(to: Mac, from: Mac, ethertype: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(1514);
    frame.extend_from_slice(&to);
    frame.extend_from_slice(&from);
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const IP: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 240);

    #[test]
    fn messages_are_read_as_they_are_written() {
        let asked = Arp::parse(&request([1; 6], Ipv4Addr::new(192, 168, 1, 50), IP)).unwrap();
        assert!(asked.is_request && !asked.is_probe());
        let answer = reply([2; 6], IP, &asked);
        assert_eq!(answer[..6], [1; 6]);
        let answer = Arp::parse(&answer).unwrap();
        assert_eq!((answer.is_request, answer.sender, answer.sender_ip), (false, [2; 6], IP));
        assert!(Arp::parse(&probe([2; 6], IP)).unwrap().is_probe());
        assert_eq!(Arp::parse(&announcement([2; 6], IP)).unwrap().sender_ip, IP);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Arp::parse(&bytes);
        }
    }
}
