//! Connections between a client and the host that it has found.

use super::{Answer, Part, Round, TTL};
use crate::games::side::{PATIENCE, Side};
use anyhow::{Context, Result, ensure};
use lanrage_daemon::games::{GamePorts, Profile, Protocol, Sender};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddrV4, TcpStream};

impl Round<'_> {
    /// The client joins at the host's ports; then the host opens connections to the client.
    pub(super) fn connect(&mut self, id: &str, profile: &Profile) -> Result<()> {
        for GamePorts { protocol, ports } in &profile.ports {
            let to = SocketAddrV4::new(self.address(Part::Host), *ports.0.start());
            match protocol {
                Protocol::Tcp => talk(&self.client, &self.host, to),
                Protocol::Udp => {
                    let from = self.client.open_udp(0)?;
                    self.exchange(id, Part::Client, from, to.port())
                }
            }
            .with_context(|| format!("joining at {protocol:?} port {}", to.port()))?;
        }
        let port = self.client.open_tcp(0)?;
        talk(&self.host, &self.client, SocketAddrV4::new(self.address(Part::Client), port))
            .context("a TCP connection of the host to the client")?;
        let is_client = profile.discovery.as_ref().is_some_and(|it| it.sender == Sender::Client);
        let port = match is_client {
            true => self.sources[id],
            false => self.client.open_udp(0)?,
        };
        let from = self.host.open_udp(0)?;
        self.exchange(id, Part::Host, from, port).context("UDP from a new port of the host to the client")
    }

    /// A datagram and one back.
    fn exchange(&mut self, id: &str, opener: Part, from: u16, to: u16) -> Result<()> {
        for (part, from, to) in [(opener, from, to), (opener.other(), to, from)] {
            let bytes = format!("{id} from {from} to {to}").into_bytes();
            let answer = Answer { from: SocketAddrV4::new(self.address(part), from), port: to, bytes };
            let there = SocketAddrV4::new(self.address(part.other()), to);
            self.side(part).send(from, &answer.bytes, there, TTL)?;
            let came = self.side_mut(part.other()).wait(|log| log.iter().any(|it| answer.is(it)))?;
            ensure!(came, "nothing came from {} to {there}", answer.from);
        }
        Ok(())
    }
}

/// Both ways over a new connection. The host's own daemon may have asked there, too, what is played.
pub(super) fn talk(from: &Side, to: &Side, address: SocketAddrV4) -> Result<()> {
    let client = from.connect(address)?;
    let own = client.local_addr()?;
    let server = loop {
        let server = to.accept(address.port())?;
        if server.peer_addr()? == own {
            break server;
        }
    };
    pass(&client, &server)?;
    pass(&server, &client)
}

fn pass(mut from: &TcpStream, mut to: &TcpStream) -> Result<()> {
    let mut got = [0; 5];
    to.set_read_timeout(Some(PATIENCE))?;
    from.write_all(b"hello")?;
    to.read_exact(&mut got)?;
    ensure!(&got == b"hello", "{got:?} came over the connection");
    Ok(())
}
