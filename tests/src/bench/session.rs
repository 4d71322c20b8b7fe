//! Two members bound to a real relay, with a real WireGuard session between them: what the userspace row forwards.

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

struct Member {
    socket: UdpSocket,
    binding: BindingClient,
    tunnel: Tunn,
    relay: SocketAddr,
}

fn now() -> Now {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Now { instant: Instant::now(), unix }
}

/// Binds both members and lets them shake hands; gives the receiver index of the first one's data packets.
pub fn establish(ends: [(&Namespace, SocketAddrV4, SocketAddrV4); 2], ticket_key: &[u8; 32]) -> Result<u32> {
    let secrets = [StaticSecret::random_from_rng(OsRng), StaticSecret::random_from_rng(OsRng)];
    let mut client = Member::bind(ends[0], &secrets[0], &secrets[1], ticket_key)?;
    let mut peer = Member::bind(ends[1], &secrets[1], &secrets[0], ticket_key)?;
    let packet =
        [&[0x45, 0, 0, 24, 0, 0, 0, 0, 64, 17, 0, 0, 10, 66, 0, 1, 10, 66, 0, 2][..], &[0; 4]].concat();
    client.send(&packet)?;
    peer.receive()?;
    client.receive()?;
    peer.receive()?;
    let mut buffer = [0; 2048];
    let TunnResult::WriteToNetwork(data) = client.tunnel.encapsulate(&packet, &mut buffer) else {
        bail!("no WireGuard session came about");
    };
    ensure!(data[0] == 4, "the handshake did not finish");
    Ok(u32::from_le_bytes([data[4], data[5], data[6], data[7]]))
}

impl Member {
    fn bind(
        (namespace, own, relay): (&Namespace, SocketAddrV4, SocketAddrV4),
        secret: &StaticSecret,
        other: &StaticSecret,
        ticket_key: &[u8; 32],
    ) -> Result<Self> {
        let ticket = Ticket {
            party: PartyId([1; 16]),
            member: WgKey(PublicKey::from(secret).to_bytes()),
            epoch: 1,
            expires: now().unix + 600,
            kbit_per_s: 0,
            packets_per_s: 0,
            session_key: SESSION_KEY,
        };
        let socket = namespace.run(|| UdpSocket::bind(own))??;
        socket.set_read_timeout(Some(Duration::from_secs(3)))?;
        let relay = SocketAddr::V4(relay);
        let mut binding = BindingClient::new(relay, OsRng);
        binding.set_ticket(ticket.seal(ticket_key, &mut OsRng), SESSION_KEY, now());
        let tunnel = Tunn::new(secret.clone(), PublicKey::from(other), None, None, 1, None);
        let mut member = Self { socket, binding, tunnel, relay };
        member.until_bound()?;
        Ok(member)
    }

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
}
