//! A relay server with a model of the data path, and members made by hand.

mod abuse;
mod bind;
mod flows;
mod stun;
mod survival;
mod wireguard;

use super::*;
use crate::binding::{BindAnswer, BindRequest, parse_answer};
use crate::identity::{PartyId, WgKey};
use crate::ticket::Ticket;
use crate::time::Now;
use blake2::digest::consts::U16;
use blake2::digest::{Digest as _, FixedOutput as _, KeyInit as _, Update as _};
use blake2::{Blake2s256, Blake2sMac};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const TICKET_KEY: [u8; 32] = [42; 32];
const SESSION_KEY: [u8; 32] = [43; 32];
const PARTY: PartyId = PartyId([1; 16]);
const OTHER_PARTY: PartyId = PartyId([2; 16]);

fn relay_address() -> SocketAddr {
    "192.0.2.1:3478".parse().unwrap()
}

fn relay_address_v6() -> SocketAddr {
    "[2001:db8::1]:3478".parse().unwrap()
}

fn address(host: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, host], 40_000 + u16::from(host)))
}

fn with_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
}

/// The same family's address of the relay.
fn leg(remote: SocketAddr) -> Leg {
    let is_v4 = remote.ip().to_canonical().is_ipv4();
    Leg { local: if is_v4 { relay_address() } else { relay_address_v6() }, remote }
}

fn key(member: u8) -> WgKey {
    WgKey([member; 32])
}

/// One Bind request at a time: transaction ids need not differ between tests.
const TRANSACTION: [u8; 12] = [9; 12];

const LIMITS: Limits = Limits { members: 300, flows: 10_000, party_members: 300, party_flows: 10_000 };

struct Bench {
    server: RelayServer,
    now: Now,
    clock: Instant,
    /// What the data path would hold.
    installed: BTreeMap<Flow, Target>,
    /// What it would keep of the bindings.
    records: BTreeMap<u32, Vec<u8>>,
    sent: Vec<(SocketAddr, Vec<u8>)>,
    /// Everything, in order.
    log: Vec<Output>,
}

fn setup(limits: Limits, clock: Instant) -> Setup {
    Setup {
        ticket_key: TICKET_KEY,
        own: vec![relay_address(), relay_address_v6()],
        alternates: Alternates::default(),
        limits,
        clock,
    }
}

impl Bench {
    fn new() -> Self {
        Self::with_limits(LIMITS)
    }

    fn with_limits(limits: Limits) -> Self {
        Self::with_setup(|setup| setup.limits = limits)
    }

    fn with_setup(change: impl FnOnce(&mut Setup)) -> Self {
        let now = Now { instant: Instant::now(), unix: 1_000_000 };
        let clock = now.instant;
        let mut setup = setup(LIMITS, clock);
        change(&mut setup);
        let server = RelayServer::new(setup, &mut StdRng::seed_from_u64(1));
        Self {
            server,
            now,
            clock,
            installed: BTreeMap::new(),
            records: BTreeMap::new(),
            sent: Vec::new(),
            log: Vec::new(),
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
        self.server.handle_timeout(self.now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.server.poll_output() {
            match &output {
                Output::Transmit { leg: out, payload } => {
                    let is_stun_test = matches!(payload[..], [1, 0x01 | 0x11, ..]);
                    assert!(*out == leg(out.remote) || is_stun_test, "leaves from elsewhere: {out:?}");
                    self.sent.push((out.remote, payload.clone()));
                }
                Output::Install { flow, target } => {
                    self.installed.insert(*flow, *target);
                }
                Output::Remove { flow } => assert!(self.installed.remove(flow).is_some(), "{flow:?}"),
                Output::Persist { slot, record } => {
                    assert!(record.len() <= RECORD_LEN);
                    self.records.insert(*slot, record.clone());
                }
                Output::Forget { slot } => assert!(self.records.remove(slot).is_some(), "slot {slot}"),
                _ => {}
            }
            self.log.push(output);
        }
    }

    /// Hands in a datagram; gives what was sent because of it.
    fn receive(&mut self, from: SocketAddr, datagram: &[u8]) -> Vec<(SocketAddr, Vec<u8>)> {
        self.sent.clear();
        self.server.handle_datagram(leg(from), datagram, self.now);
        self.drain();
        std::mem::take(&mut self.sent)
    }

    fn ticket(&self, member: u8) -> Ticket {
        Ticket {
            party: PARTY,
            member: key(member),
            epoch: 1,
            expires: self.now.unix + 600,
            kbit_per_s: 0,
            packets_per_s: 0,
            session_key: SESSION_KEY,
        }
    }

    fn ask(&mut self, from: SocketAddr, request: &BindRequest) -> Option<BindAnswer> {
        let sent = self.receive(from, &request.encode(&SESSION_KEY));
        assert!(sent.len() <= 1);
        let (to, payload) = sent.first()?;
        assert_eq!(*to, from);
        parse_answer(payload).map(|(transaction, answer)| {
            assert_eq!(transaction, request.transaction);
            answer
        })
    }

    /// Both legs of Bind; time moves by a millisecond, as nonces are ordered by it.
    fn try_bind(&mut self, from: SocketAddr, ticket: &[u8]) -> Option<BindAnswer> {
        self.pass(Duration::from_millis(1));
        let mut request =
            BindRequest { transaction: TRANSACTION, ticket: ticket.to_vec(), nonce: None, release: false };
        let Some(BindAnswer::Challenge { nonce }) = self.ask(from, &request) else { return None };
        request.nonce = Some(nonce);
        self.ask(from, &request)
    }

    fn bind_with(&mut self, from: SocketAddr, ticket: &Ticket) -> Option<BindAnswer> {
        let sealed = ticket.seal(&TICKET_KEY, &mut StdRng::seed_from_u64(3));
        self.try_bind(from, &sealed)
    }

    /// Binds member `n` of the party at its usual address.
    fn bind(&mut self, member: u8) {
        let ticket = self.ticket(member);
        let answer = self.bind_with(address(member), &ticket);
        assert!(matches!(answer, Some(BindAnswer::Bound { .. })), "{answer:?}");
    }

    /// Type 1 and 2 between two bound members.
    fn handshake(&mut self, a: u8, a_index: u32, b: u8, b_index: u32) {
        let initiation = initiation(a_index, b);
        assert_eq!(self.receive(address(a), &initiation), [(address(b), initiation.clone())]);
        let response = response(b_index, a_index, a);
        assert_eq!(self.receive(address(b), &response), [(address(a), response.clone())]);
    }

    /// Where the server would send a type 4 message.
    fn route(&mut self, from: SocketAddr, datagram: &[u8]) -> Option<Leg> {
        self.server.route_data(canonical(from), datagram, self.now.instant).ok()
    }

    fn count(&self, reason: Reason) -> u64 {
        self.server.count_of(reason)
    }

    /// Data path and userspace must agree on every flow.
    fn assert_same_as_data_path(&mut self) {
        assert_eq!(self.installed.len(), self.server.flows());
        assert_eq!(self.installed, self.server.installed().collect());
        for (flow, target) in self.installed.clone() {
            let to = self.route(flow.source, &data(flow.index));
            assert_eq!(to, Some(target.leg), "{flow:?}");
        }
    }
}

fn with_mac1(mut message: Vec<u8>, receiver: u8, at: usize) -> Vec<u8> {
    let mac_key: [u8; 32] =
        Blake2s256::new_with_prefix(b"mac1----").chain_update(key(receiver).0).finalize().into();
    let mut mac = Blake2sMac::<U16>::new((&mac_key).into());
    mac.update(&message[..at]);
    let mac: [u8; 16] = mac.finalize_fixed().into();
    message[at..at + 16].copy_from_slice(&mac);
    message
}

fn initiation(sender: u32, receiver: u8) -> Vec<u8> {
    let mut message = vec![0; 148];
    message[0] = 1;
    message[4..8].copy_from_slice(&sender.to_le_bytes());
    with_mac1(message, receiver, 116)
}

fn response(sender: u32, receiver_index: u32, receiver: u8) -> Vec<u8> {
    let mut message = vec![0; 92];
    message[0] = 2;
    message[4..8].copy_from_slice(&sender.to_le_bytes());
    message[8..12].copy_from_slice(&receiver_index.to_le_bytes());
    with_mac1(message, receiver, 60)
}

fn cookie(receiver_index: u32) -> Vec<u8> {
    let mut message = vec![0; 64];
    message[0] = 3;
    message[4..8].copy_from_slice(&receiver_index.to_le_bytes());
    message
}

fn data(receiver_index: u32) -> Vec<u8> {
    let mut message = vec![0; 96];
    message[0] = 4;
    message[4..8].copy_from_slice(&receiver_index.to_le_bytes());
    message
}

fn probe_to(receiver: u8) -> Vec<u8> {
    let mut message = vec![0; 80];
    message[..4].copy_from_slice(&crate::path::probe::MAGIC);
    message[4] = 1;
    message[8..16].copy_from_slice(&crate::path::probe::tag(&key(receiver)));
    message
}
