//! Packets of one interface, taken and given past the kernel's own routing (AF_PACKET).

use super::netns::command_output;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{LinkAddr, MsgFlags, bind, recvfrom, send, setsockopt, sockopt::RcvBufForce};
use socket2::{Domain, Protocol, Socket, Type};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;
use std::process::Command;

/// `ETH_P_IP`: what arrives. (`ETH_P_ALL` also shows what is sent.)
pub const IPV4: u16 = 0x0800;
/// `ETH_P_ALL`.
pub const EVERYTHING: u16 = 3;
/// `PACKET_OUTGOING` of packet(7).
const OUTGOING: u8 = 4;
/// Room for bursts while this process does not run.
const BUFFER: usize = 8 << 20;
/// The largest packet of any link here.
pub const MAX_PACKET: usize = 65_536;

/// One interface of the network namespace in which it was opened.
#[derive(Debug)]
pub struct Capture {
    socket: Socket,
    index: usize,
}

impl Capture {
    /// Packets of this protocol, without their Ethernet header.
    pub fn packets(interface: &str, protocol: u16) -> Result<Self> {
        Self::open(interface, protocol, Type::DGRAM)
    }

    /// Whole frames of every protocol.
    pub fn frames(interface: &str) -> Result<Self> {
        Self::open(interface, EVERYTHING, Type::RAW)
    }

    fn open(interface: &str, protocol: u16, kind: Type) -> Result<Self> {
        let protocol = Protocol::from(i32::from(protocol.to_be()));
        let socket = Socket::new(Domain::PACKET, kind, Some(protocol)).context("cannot capture packets")?;
        setsockopt(&socket, RcvBufForce, &BUFFER)?;
        let address = link_address(interface)?;
        bind(socket.as_raw_fd(), &address).with_context(|| format!("cannot capture at {interface}"))?;
        Ok(Self { socket, index: address.ifindex() })
    }

    /// Waits for the next packet that arrives; its length. An interface that is down just now has none.
    pub fn receive(&self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), buffer) {
                Ok((length, Some(from))) if from.ifindex() == self.index && from.pkttype() != OUTGOING => {
                    return Ok(length);
                }
                Ok(_) | Err(Errno::EINTR | Errno::ENETDOWN) => {}
                Err(error) => return Err(error).context("cannot capture packets"),
            }
        }
    }

    /// Sends a whole frame; whether the interface took it.
    pub fn send(&self, frame: &[u8]) -> bool {
        send(self.socket.as_raw_fd(), frame, MsgFlags::empty()).is_ok()
    }
}

/// The MAC address and index of an interface.
fn link_address(interface: &str) -> Result<LinkAddr> {
    let found = getifaddrs().context("cannot list interfaces")?.find_map(|entry| {
        let address = *entry.address?.as_link_addr()?;
        (entry.interface_name == interface).then_some(address)
    });
    found.with_context(|| format!("there is no interface {interface:?}"))
}

/// The first IPv4 address of an interface.
pub fn ipv4_address(interface: &str) -> Result<Ipv4Addr> {
    let found = getifaddrs().context("cannot list interfaces")?.find_map(|entry| {
        let address = entry.address?.as_sockaddr_in()?.ip();
        (entry.interface_name == interface).then_some(address)
    });
    found.with_context(|| format!("{interface} has no IPv4 address"))
}

/// The largest packet that an interface sends.
pub fn mtu(interface: &str) -> Result<u16> {
    let text = command_output(Command::new("ip").args(["-oneline", "link", "show", "dev", interface]))?;
    let mut words = text.split_whitespace().skip_while(|word| *word != "mtu");
    let mtu = words.nth(1).and_then(|mtu| mtu.parse().ok());
    mtu.with_context(|| format!("{interface} has no MTU"))
}
