//! The relay role on loopback: real sockets, real WireGuard sessions, userspace forwarding.

use super::super::*;
use crate::config::{RelayModeChoice, TlsListen};
use boringtun::noise::{Tunn, TunnResult};
use lanrage_common::binding::{BindingClient, Output};
use lanrage_common::identity::{PartyId, WgKey};
use lanrage_common::relay::MemberLimits;
use lanrage_common::ticket::Ticket;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::time::timeout;
use x25519_dalek::{PublicKey, StaticSecret};

const SESSION_KEY: [u8; 32] = [7; 32];
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Relay {
    pub(super) handle: RelayHandle,
    ticket_key: [u8; 32],
    pub(super) address: SocketAddr,
    pub(super) _trigger: crate::shutdown::ShutdownTrigger,
    _state: tempfile::TempDir,
}

async fn relay() -> Relay {
    relay_with(RelayConfig { listen: "127.0.0.1:0".parse().unwrap(), ..RelayConfig::default() }).await
}

/// A userspace relay of its own, with these settings besides.
pub(super) async fn relay_with(config: RelayConfig) -> Relay {
    let state = tempfile::tempdir().unwrap();
    let config = RelayConfig {
        control: Some("http://127.0.0.1:9".into()),
        token: Some("token".into()),
        mode: RelayModeChoice::Userspace,
        pin_dir: PathBuf::new(),
        tls_listen: TlsListen::Off,
        ..config
    };
    let (trigger, shutdown) = crate::shutdown::channel();
    let handle = start(&config, state.path(), shutdown).await.unwrap();
    let address = handle.status.borrow().addresses[0];
    let ticket_key = key::load_or_create(state.path()).unwrap();
    Relay { handle, ticket_key, address, _trigger: trigger, _state: state }
}

/// A member with a real socket and a real WireGuard session to one other member.
pub(super) struct Member {
    /// Where the relay is for this member.
    at: SocketAddr,
    pub(super) socket: UdpSocket,
    binding: BindingClient,
    tunnel: Tunn,
}

impl Member {
    async fn bind(relay: &Relay, secret: &StaticSecret, other: &StaticSecret) -> Self {
        Self::bind_at(relay, relay.address, MemberLimits::default(), secret, other).await
    }

    /// Binds to one of the relay's addresses, with limits in its ticket.
    pub(super) async fn bind_at(
        relay: &Relay,
        at: SocketAddr,
        limits: MemberLimits,
        secret: &StaticSecret,
        other: &StaticSecret,
    ) -> Self {
        let ticket = Ticket {
            party: PartyId([1; 16]),
            member: WgKey(PublicKey::from(secret).to_bytes()),
            epoch: 1,
            expires: crate::clock::now().unix + 600,
            kbit_per_s: limits.kbit_per_s,
            packets_per_s: limits.packets_per_s,
            session_key: SESSION_KEY,
        };
        let mut binding = BindingClient::new(at, OsRng);
        binding.set_ticket(ticket.seal(&relay.ticket_key, &mut OsRng), SESSION_KEY, crate::clock::now());
        let tunnel = Tunn::new(secret.clone(), PublicKey::from(other), None, None, 1, None);
        let ip = if at.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
        let socket = UdpSocket::bind(ip).await.unwrap();
        let mut member = Self { at, socket, binding, tunnel };
        member.until_bound().await;
        member
    }

    /// Asks again when no answer comes: a flood may push question or answer out of a socket's buffer.
    async fn until_bound(&mut self) {
        let (mut buffer, begin) = ([0; 2048], Instant::now());
        while !self.binding.is_bound() {
            while let Some(output) = self.binding.poll_output() {
                if let Output::Transmit { to, payload } = output {
                    self.socket.send_to(&payload, to).await.unwrap();
                }
            }
            match timeout(Duration::from_millis(100), self.socket.recv_from(&mut buffer)).await {
                Ok(received) => {
                    let (length, from) = received.unwrap();
                    assert_eq!(from, self.at);
                    // a question that was asked twice may be answered twice
                    self.binding.handle_datagram(from, &buffer[..length], crate::clock::now());
                }
                Err(_) => self.binding.handle_timeout(crate::clock::now()),
            }
            assert!(begin.elapsed() < PATIENCE, "the relay does not bind a member");
        }
        let mapped = self.socket.local_addr().unwrap();
        assert_eq!(self.binding.poll_output(), Some(Output::Bound { mapped }));
    }

    /// Sends an IP packet through the tunnel, which starts a handshake when there is none.
    pub(super) async fn send(&mut self, _: &Relay, packet: &[u8]) {
        let mut buffer = [0; 2048];
        let TunnResult::WriteToNetwork(datagram) = self.tunnel.encapsulate(packet, &mut buffer) else {
            panic!("nothing to send")
        };
        self.socket.send_to(datagram, self.at).await.unwrap();
    }

    /// Takes one datagram from the relay; gives the IP packet if it held one.
    pub(super) async fn receive(&mut self, _: &Relay) -> Option<Vec<u8>> {
        let (mut input, mut output) = ([0; 2048], [0; 2048]);
        let received = timeout(PATIENCE, self.socket.recv_from(&mut input)).await;
        let (length, from) = received.expect("the relay forwards").unwrap();
        assert_eq!(from, self.at);
        let mut result = self.tunnel.decapsulate(None, &input[..length], &mut output);
        loop {
            match result {
                TunnResult::WriteToNetwork(datagram) => {
                    self.socket.send_to(datagram, self.at).await.unwrap();
                }
                TunnResult::WriteToTunnelV4(packet, _) => return Some(packet.to_vec()),
                TunnResult::Done => return None,
                other => panic!("{other:?}"),
            }
            result = self.tunnel.decapsulate(None, &[], &mut output);
        }
    }

    pub(super) async fn receive_packet(&mut self, relay: &Relay) -> Vec<u8> {
        loop {
            if let Some(packet) = self.receive(relay).await {
                return packet;
            }
        }
    }

    /// A new socket, as after a NAT rebinding.
    async fn move_to_a_new_port(&mut self, _: &Relay) {
        self.socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        self.binding.rebind(crate::clock::now());
        let mut buffer = [0; 2048];
        loop {
            while let Some(output) = self.binding.poll_output() {
                match output {
                    Output::Transmit { to, payload } => {
                        self.socket.send_to(&payload, to).await.unwrap();
                    }
                    Output::MappedChanged { mapped } => {
                        assert_eq!(mapped, self.socket.local_addr().unwrap());
                        return;
                    }
                    other => panic!("{other:?}"),
                }
            }
            let (length, from) =
                timeout(PATIENCE, self.socket.recv_from(&mut buffer)).await.unwrap().unwrap();
            assert!(self.binding.handle_datagram(from, &buffer[..length], crate::clock::now()));
            assert_eq!(from, self.at);
        }
    }
}

/// The smallest IPv4 packet that boringtun lets through, with a payload to tell packets apart.
pub(super) fn packet(payload: u32) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 24, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend(Ipv4Addr::new(10, 66, 0, 1).octets());
    packet.extend(Ipv4Addr::new(10, 66, 0, 2).octets());
    packet.extend(payload.to_be_bytes());
    packet
}

pub(super) async fn status_when(relay: &mut Relay, is_reached: impl Fn(&RelayStatus) -> bool) -> RelayStatus {
    let status = timeout(PATIENCE, relay.handle.status.wait_for(is_reached)).await;
    status.expect("the status is reached in time").unwrap().clone()
}

async fn pair(relay: &Relay) -> (Member, Member) {
    let (a, b) = (StaticSecret::random_from_rng(OsRng), StaticSecret::random_from_rng(OsRng));
    (Member::bind(relay, &a, &b).await, Member::bind(relay, &b, &a).await)
}

/// First packet both ways; the handshake happens on the way.
pub(super) async fn connect(relay: &Relay, a: &mut Member, b: &mut Member) {
    a.send(relay, &packet(1)).await;
    assert_eq!(b.receive(relay).await, None, "type 1");
    assert_eq!(a.receive(relay).await, None, "type 2");
    assert_eq!(b.receive_packet(relay).await, packet(1));
    b.send(relay, &packet(2)).await;
    assert_eq!(a.receive_packet(relay).await, packet(2));
}

#[tokio::test]
async fn two_members_talk_through_the_relay() {
    let mut relay = relay().await;
    let (mut a, mut b) = pair(&relay).await;
    connect(&relay, &mut a, &mut b).await;
    for n in 0..200 {
        a.send(&relay, &packet(n)).await;
        assert_eq!(b.receive_packet(&relay).await, packet(n));
        b.send(&relay, &packet(1000 + n)).await;
        assert_eq!(a.receive_packet(&relay).await, packet(1000 + n));
    }
    let status = status_when(&mut relay, |status| status.userspace_forwarded >= 402).await;
    assert_eq!((status.bindings, status.flows, status.kernel_forwarded), (2, 2, 0));
    assert_eq!(status.mode, lanrage_common::api::RelayMode::Userspace);
    assert_eq!(status.userspace["handshake_forwarded"], 2);
    assert_eq!(status.userspace["bind_accepted"], 2);
}

#[tokio::test]
async fn a_moved_member_goes_on_without_a_handshake() {
    let mut relay = relay().await;
    let (mut a, mut b) = pair(&relay).await;
    connect(&relay, &mut a, &mut b).await;
    a.move_to_a_new_port(&relay).await;
    b.send(&relay, &packet(3)).await;
    assert_eq!(a.receive_packet(&relay).await, packet(3));
    a.send(&relay, &packet(4)).await;
    assert_eq!(b.receive_packet(&relay).await, packet(4));
    let status = status_when(&mut relay, |status| status.userspace_forwarded >= 5).await;
    assert_eq!(status.userspace["handshake_forwarded"], 2);
    assert_eq!((status.bindings, status.flows), (2, 2));
}

#[tokio::test]
async fn a_restarted_relay_knows_its_tickets_but_wants_new_bindings() {
    let relay = relay().await;
    let (mut a, _b) = pair(&relay).await;
    let Relay { address, _trigger, mut handle, _state, ticket_key } = relay;
    drop(_trigger);
    while handle.status.changed().await.is_ok() {}
    let config = RelayConfig {
        listen: address,
        control: Some("http://127.0.0.1:9".into()),
        token: Some("token".into()),
        mode: RelayModeChoice::Userspace,
        pin_dir: PathBuf::new(),
        tls_listen: TlsListen::Off,
        ..RelayConfig::default()
    };
    let (trigger, shutdown) = crate::shutdown::channel();
    let handle = start(&config, _state.path(), shutdown).await.unwrap();
    let mut relay = Relay { handle, ticket_key, address, _trigger: trigger, _state };
    assert_eq!(relay.handle.status.borrow().bindings, 0);
    a.binding.rebind(crate::clock::now());
    let mut buffer = [0; 2048];
    for _ in 0..2 {
        let Some(Output::Transmit { to, payload }) = a.binding.poll_output() else { panic!() };
        a.socket.send_to(&payload, to).await.unwrap();
        let (length, from) = timeout(PATIENCE, a.socket.recv_from(&mut buffer)).await.unwrap().unwrap();
        assert!(a.binding.handle_datagram(from, &buffer[..length], crate::clock::now()));
    }
    assert!(a.binding.is_bound());
    let status = status_when(&mut relay, |status| status.bindings == 1).await;
    assert_eq!(status.userspace["bind_stale_nonce"], 1, "nonces do not outlive the process, tickets do");
}

#[tokio::test]
async fn garbage_is_counted_and_never_answered() {
    let mut relay = relay().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let datagrams: [&[u8]; 6] = [b"", b"hello", &[4, 0, 0, 0], &[1; 148], &[4; 1400], &[0; 65_507]];
    for datagram in datagrams {
        socket.send_to(datagram, relay.address).await.unwrap();
    }
    let status = status_when(&mut relay, |s| s.userspace.values().sum::<u64>() >= 6).await;
    let reasons = ["unknown_protocol", "malformed"].map(|reason| status.userspace[reason]);
    assert_eq!(reasons, [4, 2]);
    let mut buffer = [0; 64];
    let silence = timeout(Duration::from_millis(200), socket.recv_from(&mut buffer)).await;
    assert!(silence.is_err(), "{silence:?}");
}

#[tokio::test]
async fn an_unreachable_control_server_is_a_problem_with_a_cure() {
    let mut relay = relay().await;
    let status = status_when(&mut relay, |status| !status.problems.is_empty()).await;
    assert!(!status.registered);
    let problem = &status.problems[0];
    assert_eq!(problem.code, "relay_not_registered");
    assert!(problem.message.contains("http://127.0.0.1:9"), "{}", problem.message);
    assert!(problem.fix.contains("relay-token"), "{}", problem.fix);
}

#[tokio::test]
async fn the_relay_stops_when_asked() {
    let relay = relay().await;
    let started = Instant::now();
    let Relay { mut handle, _trigger, .. } = relay;
    _trigger.request();
    while timeout(PATIENCE, handle.status.changed()).await.unwrap().is_ok() {}
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn bad_configuration_is_one_clear_line() {
    let state = tempfile::tempdir().unwrap();
    let (_trigger, shutdown) = crate::shutdown::channel();
    let listen = "127.0.0.1:0".parse().unwrap();
    let without_control = RelayConfig { listen, tls_listen: TlsListen::Off, ..RelayConfig::default() };
    let error = start(&without_control, state.path(), shutdown.clone()).await.unwrap_err().to_string();
    assert!(error.contains("relay.control is missing"), "{error}");
    let without_token = RelayConfig { control: Some("http://127.0.0.1:9".into()), ..without_control };
    let error = start(&without_token, state.path(), shutdown.clone()).await.unwrap_err().to_string();
    assert!(error.contains("relay.token is missing"), "{error}");
    let foreign = RelayConfig { listen: "192.0.2.1:3478".parse().unwrap(), ..without_token };
    let error = start(&foreign, state.path(), shutdown).await.unwrap_err().to_string();
    assert!(error.contains("no address of this machine"), "{error}");
}
