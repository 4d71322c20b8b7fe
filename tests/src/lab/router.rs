//! The process that is a router with the lab's own NAT: between the interfaces `lan` and `wan` of its namespace.

use super::capture::{Capture, IPV4, MAX_PACKET, ipv4_address, mtu};
use super::nat::behaviour::Behaviour;
use super::nat::packet::{Packet, cut, too_big};
use super::nat::translate::{Nat, Side};
use super::netns::Namespace;
use super::remote::Service;
use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

const SERVICE: Service = Service { name: "router" };
/// `EMSGSIZE`: the packet is larger than the interface's MTU.
const TOO_BIG: Option<i32> = Some(libc::EMSGSIZE);

/// Makes a namespace's router behave like this, from now on; its public address is read anew.
pub fn apply(namespace: &Namespace, behaviour: Behaviour) -> Result<()> {
    match SERVICE.ask(namespace, &format!("change {behaviour}"))? {
        Some(_) => Ok(()),
        None => SERVICE.start(namespace, &[&behaviour.to_string()]),
    }
}

/// Leaves a namespace's packets to the kernel again.
pub fn stop(namespace: &Namespace) -> Result<()> {
    SERVICE.stop(namespace)
}

/// What the router refused so far, e.g. `Unsolicited=3`.
pub fn refused(namespace: &Namespace) -> Result<String> {
    SERVICE.ask(namespace, "refused")?.context("this router is the kernel")
}

/// Is the router of the namespace that this process was started in.
pub fn run(behaviour: Behaviour) -> Result<()> {
    let ways = [Side::Inside, Side::Outside].map(Way::open);
    let [inside, outside] = ways;
    let router = Arc::new(Router { inside: inside?, outside: outside?, nat: Mutex::new(nat(behaviour)?) });
    for side in [Side::Inside, Side::Outside] {
        let router = router.clone();
        let capture = Capture::packets(interface(side), IPV4)?;
        std::thread::spawn(move || {
            if let Err(error) = router.forward(side, &capture) {
                let _ = writeln!(std::io::stderr(), "error: {error:#}"); // whoever started it may have gone
                std::process::exit(1); // half a router would be a riddle
            }
        });
    }
    SERVICE.serve(|request| router.answer(request))
}

fn interface(side: Side) -> &'static str {
    match side {
        Side::Inside => "lan",
        Side::Outside => "wan",
    }
}

fn nat(behaviour: Behaviour) -> Result<Nat> {
    Ok(Nat::new(behaviour, ipv4_address(interface(Side::Outside))?))
}

struct Router {
    inside: Way,
    outside: Way,
    nat: Mutex<Nat>,
}

/// The way out on one side. The kernel finds the neighbour.
struct Way {
    socket: Socket,
    address: Ipv4Addr,
    mtu: u16,
}

impl Way {
    fn open(side: Side) -> Result<Self> {
        let interface = interface(side);
        // packets come with their header (raw(7))
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
        socket.bind_device(Some(interface.as_bytes()))?;
        Ok(Self { socket, address: ipv4_address(interface)?, mtu: mtu(interface)? })
    }

    /// What the link cannot carry is lost, as on any link; whether it was too big.
    fn send(&self, packet: &[u8], to: Ipv4Addr) -> bool {
        let sent = self.socket.send_to(packet, &SocketAddrV4::new(to, 0).into());
        sent.is_err_and(|error| error.raw_os_error() == TOO_BIG)
    }
}

impl Router {
    fn forward(&self, from: Side, capture: &Capture) -> Result<()> {
        let mut buffer = vec![0; MAX_PACKET];
        loop {
            let length = capture.receive(&mut buffer)?;
            let packet = &mut buffer[..length];
            let before = packet.to_vec();
            let passed =
                self.nat.lock().unwrap_or_else(PoisonError::into_inner).handle(from, packet, Instant::now());
            if let Ok(to) = passed
                && let Some(packet) = Packet::parse(packet)
            {
                self.send(from, &before, to, &packet);
            }
        }
    }

    fn send(&self, from: Side, before: &[u8], to: Side, packet: &Packet) {
        let (way, destination) = (self.way(to), *packet.destination().ip());
        if !way.send(packet.bytes(), destination) {
            return;
        }
        if packet.is_uncuttable() {
            let back = self.way(from);
            let answer = too_big(before, back.address, way.mtu);
            back.send(&answer, Ipv4Addr::new(before[12], before[13], before[14], before[15]));
            return;
        }
        for piece in cut(packet.bytes(), way.mtu) {
            way.send(&piece, destination);
        }
    }

    fn way(&self, side: Side) -> &Way {
        match side {
            Side::Inside => &self.inside,
            Side::Outside => &self.outside,
        }
    }

    fn answer(&self, request: &str) -> Result<String> {
        let mut nat = self.nat.lock().unwrap_or_else(PoisonError::into_inner);
        match request.split_once(' ').unwrap_or((request, "")) {
            ("change", behaviour) => {
                nat.change(behaviour.parse()?, ipv4_address(interface(Side::Outside))?);
                Ok(String::new())
            }
            ("refused", _) => {
                let counts = nat.refused().iter().map(|(refusal, count)| format!("{refusal:?}={count}"));
                Ok(counts.collect::<Vec<_>>().join(" "))
            }
            _ => bail!("a router does not know {request:?}"),
        }
    }
}
