//! Members bound to a real relay, with real WireGuard sessions between them: what the userspace row forwards.

use super::generator::Traffic;
use crate::lab::netns::Namespace;
use anyhow::{Context, Result, bail, ensure};
use boringtun::noise::{Tunn, TunnResult};
use lanrage_common::binding::{BindingClient, Output};
use lanrage_common::identity::{PartyId, WgKey};
use lanrage_common::ticket::Ticket;
use lanrage_common::time::Now;
use rand_core::OsRng;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant, SystemTime};
use x25519_dalek::{PublicKey, StaticSecret};

const SESSION_KEY: [u8; 32] = [7; 32];
/// From one pair's receiver indexes to the next one's: the low byte counts a tunnel's sessions.
pub const STRIDE: u32 = 1 << 8;

struct Member {
    socket: UdpSocket,
    binding: BindingClient,
    tunnel: Tunn,
    relay: SocketAddr,
}

/// Where one side's members are, and how they reach the relay.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    /// Their network.
    pub namespace: &'a Namespace,
    /// The relay's address there.
    pub relay: SocketAddrV4,
}

/// The first pair's receiver indexes: towards the peer, and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Indexes {
    /// In what the client sends.
    pub there: u32,
    /// In what the peer sends.
    pub back: u32,
}

fn now() -> Now {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Now { instant: Instant::now(), unix }
}

/// Binds both members, each from its own address, and lets them shake hands; gives the receiver index of the first
/// one's data packets.
pub fn establish(ends: [(&Namespace, SocketAddrV4, SocketAddrV4); 2], ticket_key: &[u8; 32]) -> Result<u32> {
    let sides = ends.map(|(namespace, _, relay)| Side { namespace, relay });
    let pair = Pair { flow: 0, ends: ends.map(|(_, own, _)| own) };
    Ok(pair.shake_hands(sides, ticket_key)?.there)
}

/// Binds two members a flow, client and peer in a party of their own, and lets each pair shake hands. Flow `n` goes from
/// the traffic's `n`th source to the `n`th port from `first_port` on.
pub fn establish_all(
    [client, peer]: [Side<'_>; 2],
    traffic: &Traffic,
    first: SocketAddrV4,
    ticket_key: &[u8; 32],
) -> Result<Indexes> {
    let mut indexes = None;
    for flow in 0..traffic.flows {
        let destination = SocketAddrV4::new(*first.ip(), first.port() + flow as u16);
        let pair = Pair { flow, ends: [traffic.source_of(flow), destination] };
        let own = pair.shake_hands([client, peer], ticket_key).with_context(|| format!("pair {flow}"))?;
        let first = *indexes.get_or_insert(own);
        let expected = first.there.wrapping_add(flow.wrapping_mul(STRIDE));
        ensure!(own.there == expected, "pair {flow} has index {:#x} instead of {expected:#x}", own.there);
    }
    indexes.context("traffic without flows")
}

/// Binds members of one party, one at each source, and lets them be: a binding outlives its socket.
pub fn bind_party(side: Side<'_>, sources: impl Iterator<Item = SocketAddrV4>, key: &[u8; 32]) -> Result<()> {
    for own in sources {
        let secrets = [StaticSecret::random_from_rng(OsRng), StaticSecret::random_from_rng(OsRng)];
        let pair = Pair { flow: u32::MAX, ends: [own, own] };
        pair.bind([side, side], 0, &secrets, key).with_context(|| format!("binding {own}"))?;
    }
    Ok(())
}

/// Two members of one party.
struct Pair {
    flow: u32,
    ends: [SocketAddrV4; 2],
}

impl Pair {
    /// Gives the receiver indexes of the session.
    fn shake_hands(&self, sides: [Side<'_>; 2], ticket_key: &[u8; 32]) -> Result<Indexes> {
        let secrets = [StaticSecret::random_from_rng(OsRng), StaticSecret::random_from_rng(OsRng)];
        let mut client = self.bind(sides, 0, &secrets, ticket_key)?;
        let mut peer = self.bind(sides, 1, &secrets, ticket_key)?;
        let packet =
            [&[0x45, 0, 0, 24, 0, 0, 0, 0, 64, 17, 0, 0, 10, 66, 0, 1, 10, 66, 0, 2][..], &[0; 4]].concat();
        client.send(&packet)?;
        peer.receive()?;
        client.receive()?;
        peer.receive()?;
        Ok(Indexes { there: client.index(&packet)?, back: peer.index(&packet)? })
    }

    fn bind(
        &self,
        sides: [Side<'_>; 2],
        at: usize,
        secrets: &[StaticSecret; 2],
        ticket_key: &[u8; 32],
    ) -> Result<Member> {
        let mut party = [1; 16];
        party[..4].copy_from_slice(&self.flow.to_be_bytes());
        let ticket = Ticket {
            party: PartyId(party),
            member: WgKey(PublicKey::from(&secrets[at]).to_bytes()),
            epoch: 1,
            expires: now().unix + 600,
            kbit_per_s: 0,
            packets_per_s: 0,
            session_key: SESSION_KEY,
        };
        let Side { namespace, relay } = sides[at];
        let own = self.ends[at];
        let socket =
            namespace.run(|| UdpSocket::bind(own))?.with_context(|| format!("cannot send from {own}"))?;
        socket.set_read_timeout(Some(Duration::from_secs(3)))?;
        let relay = SocketAddr::V4(relay);
        let mut binding = BindingClient::new(relay, OsRng);
        binding.set_ticket(ticket.seal(ticket_key, &mut OsRng), SESSION_KEY, now());
        let other = PublicKey::from(&secrets[1 - at]);
        let tunnel = Tunn::new(secrets[at].clone(), other, None, None, self.flow.wrapping_add(1), None);
        let mut member = Member { socket, binding, tunnel, relay };
        member.until_bound()?;
        Ok(member)
    }
}

impl Member {
    fn until_bound(&mut self) -> Result<()> {
        let mut buffer = [0; 2048];
        while !self.binding.is_bound() {
            while let Some(output) = self.binding.poll_output() {
                if let Output::Transmit { to, payload } = output {
                    self.socket.send_to(&payload, to)?;
                }
            }
            let (length, from) = self.socket.recv_from(&mut buffer).context("the relay does not answer")?;
            self.binding.handle_datagram(from, &buffer[..length], now());
        }
        Ok(())
    }

    fn send(&mut self, packet: &[u8]) -> Result<()> {
        let mut buffer = [0; 2048];
        if let TunnResult::WriteToNetwork(datagram) = self.tunnel.encapsulate(packet, &mut buffer) {
            self.socket.send_to(datagram, self.relay)?;
        }
        Ok(())
    }

    /// Takes one datagram and sends what follows from it.
    fn receive(&mut self) -> Result<()> {
        let (mut input, mut output) = ([0; 2048], [0; 2048]);
        let (length, _) =
            self.socket.recv_from(&mut input).context("the relay does not forward handshakes")?;
        let mut result = self.tunnel.decapsulate(None, &input[..length], &mut output);
        while let TunnResult::WriteToNetwork(datagram) = result {
            self.socket.send_to(datagram, self.relay)?;
            result = self.tunnel.decapsulate(None, &[], &mut output);
        }
        Ok(())
    }

    /// The receiver index of what it sends.
    fn index(&mut self, packet: &[u8]) -> Result<u32> {
        let mut buffer = [0; 2048];
        let TunnResult::WriteToNetwork(data) = self.tunnel.encapsulate(packet, &mut buffer) else {
            bail!("no WireGuard session came about");
        };
        ensure!(data[0] == 4, "the handshake did not finish");
        Ok(u32::from_le_bytes([data[4], data[5], data[6], data[7]]))
    }
}
