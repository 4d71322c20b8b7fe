//! What the relay's kernel program must do, said a second time and differently: by slices, with every checksum computed
//! from the whole packet. The differential test compares the two.

mod budget;
mod frame;
mod stun;

use frame::Packet;
use lanrage_common::maps::{
    Credit, FlowKey, FlowValue, Global, MemberCounter, MemberState, NextHop, SourceKey,
};
use lanrage_common::police::Rate;
use lanrage_common::reason::Reason;
use lanrage_common::wire::{Be16, Be32};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::net::IpAddr;

/// `XDP_DROP`.
pub const DROP: u32 = 1;
/// `XDP_PASS`.
pub const PASS: u32 = 2;
/// `XDP_TX`.
pub const TX: u32 = 3;
/// `XDP_REDIRECT`.
pub const REDIRECT: u32 = 4;

/// A map whose order is the same in every run.
pub type Table<K, V> = HashMap<K, V, BuildHasherDefault<DefaultHasher>>;

/// State that the program would find in its maps.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// Own addresses.
    pub addresses: Vec<IpAddr>,
    /// Own ports.
    pub ports: Vec<u16>,
    /// Main and alternate port of RFC 5780; zeros = none.
    pub pair_ports: [u16; 2],
    /// Main and alternate addresses of RFC 5780.
    pub pair_addresses: Vec<[IpAddr; 2]>,
    /// Whether headers may change in size.
    pub mixed: bool,
    /// Whether strangers are dropped.
    pub strict: bool,
    /// Nanoseconds.
    pub now: u64,
    /// Everybody's packets.
    pub packets: Rate,
    /// Everybody's bytes.
    pub bytes: Rate,
    /// STUN that is passed up.
    pub stun: Rate,
    /// Packets taken at once.
    pub packets_chunk: u64,
    /// Bytes taken at once.
    pub bytes_chunk: u64,
    /// The flow table.
    pub flows: Table<FlowKey, FlowValue>,
    /// The next hops by slot.
    pub next_hops: Vec<NextHop>,
    /// The members by slot.
    pub members: Vec<MemberState>,
    /// Who is bound where.
    pub sources: Table<SourceKey, u32>,
    /// The global budget.
    pub global: Global,
    /// The only CPU's credit.
    pub credit: Credit,
    /// Members' counters by slot.
    pub counters: Vec<MemberCounter>,
    /// Where frames come in.
    pub ingress: u32,
    /// Free bytes in front of a frame.
    pub headroom: usize,
}

/// What becomes of one frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The XDP action.
    pub action: u32,
    /// The counter that goes up by one.
    pub reason: Reason,
    /// The frame afterwards.
    pub frame: Vec<u8>,
}

impl Model {
    /// Runs a frame through.
    pub fn run(&mut self, frame: &[u8]) -> Outcome {
        let (reason, frame) = match self.handle(frame) {
            Ok(done) => done,
            Err(reason) => (reason, frame.to_vec()),
        };
        Outcome { action: action(reason), reason, frame }
    }

    fn handle(&mut self, frame: &[u8]) -> Result<(Reason, Vec<u8>), Reason> {
        let packet = Packet::locate(frame)?;
        self.check_ip(&packet)?;
        let udp = packet.udp()?;
        if !self.ports.contains(&number16(&udp[2..4])) {
            return Err(Reason::OtherPort);
        }
        match self.handle_own(&packet) {
            Err(reason) => Err(self.admit(&packet, reason)),
            done => done,
        }
    }

    fn check_ip(&self, packet: &Packet<'_>) -> Result<(), Reason> {
        packet.check_version()?;
        if !self.addresses.contains(&packet.destination()) {
            return Err(Reason::OtherAddress);
        }
        packet.check_protocol()
    }

    /// A datagram to one of the relay's own addresses and ports.
    fn handle_own(&mut self, packet: &Packet<'_>) -> Result<(Reason, Vec<u8>), Reason> {
        packet.check_lengths()?;
        let payload = packet.payload();
        match payload {
            [4, 0, 0, 0, ..] if payload.len() >= 32 => self.forward(packet),
            [4, 0, 0, 0, ..] => Err(Reason::ShortData),
            [0xA7, b'L', b'R', 1, ..] => Err(Reason::Probe),
            [1..=3, 0, 0, 0, ..] => Err(Reason::NotData),
            [4, _, _, _, ..] => Err(Reason::Reserved),
            _ if stun::is_stun(payload) => {
                let answer = self.answer(packet).ok_or(Reason::StunPassed)?;
                Ok((Reason::StunAnswered, answer))
            }
            _ => Err(Reason::NotData),
        }
    }

    fn forward(&mut self, packet: &Packet<'_>) -> Result<(Reason, Vec<u8>), Reason> {
        if packet.ttl() < 2 {
            return Err(Reason::TtlExpired);
        }
        let flow = *self.flows.get(&packet.key()).ok_or(Reason::NoFlow)?;
        if self.now >= u64::from(flow.expires) * 1_000_000_000 {
            return Err(Reason::FlowExpired);
        }
        let slot = flow.member as usize;
        if let Err(reason) = self.spend(slot, packet.payload().len() as u64) {
            self.count_dropped(slot);
            return Err(reason);
        }
        let hop = *self.next_hops.get(flow.next_hop as usize).ok_or(Reason::NoNextHop)?;
        let destination = IpAddr::from(flow.destination);
        let source = IpAddr::from(hop.source);
        if hop.ifindex == 0 || destination.is_ipv4() != source.is_ipv4() {
            return Err(Reason::NoNextHop);
        }
        let header = if source.is_ipv4() { 20 } else { 40 };
        if header + 8 + packet.payload().len() > hop.mtu as usize {
            return Err(Reason::TooBig);
        }
        let link = if hop.vlan == 0 { 14 } else { 18 };
        self.check_change(packet, link, header)?;
        if let Some(counter) = self.counters.get_mut(slot) {
            counter.packets += 1;
            counter.bytes += packet.frame.len() as u64;
        }
        let reason = if hop.ifindex == self.ingress { Reason::Forwarded } else { Reason::Redirected };
        Ok((reason, packet.rewrite(&flow, &hop)))
    }

    fn check_change(&self, packet: &Packet<'_>, link: usize, header: usize) -> Result<(), Reason> {
        if (packet.link, packet.header) == (link, header) {
            return Ok(());
        }
        if !self.mixed {
            return Err(Reason::Mixed);
        }
        if packet.header == 20 && header == 40 && packet.ip()[26..28] == [0, 0] {
            return Err(Reason::NoChecksum);
        }
        if link + header > packet.link + packet.header + self.headroom {
            return Err(Reason::NoHeadroom);
        }
        Ok(())
    }

    fn count_dropped(&mut self, slot: usize) {
        if let Some(counter) = self.counters.get_mut(slot) {
            counter.dropped += 1;
        }
    }
}

/// By hand, so that a wrong entry in the table of reasons shows.
fn action(reason: Reason) -> u32 {
    use Reason as R;
    match reason {
        R::Forwarded | R::StunAnswered => TX,
        R::Redirected => REDIRECT,
        R::StunFlood | R::Unbound | R::RateHandshake | R::RateProbe | R::RateMember | R::RateGlobal => DROP,
        _ => PASS,
    }
}

/// The key under which a source is bound.
pub fn source_key(address: IpAddr, port: u16) -> SourceKey {
    SourceKey::new(address.into(), Be16::new(port))
}

/// The key of a flow.
pub fn flow_key(address: IpAddr, port: u16, index: &[u8]) -> FlowKey {
    FlowKey {
        source: address.into(),
        index: Be32::from_octets([index[0], index[1], index[2], index[3]]),
        source_port: Be16::new(port),
        reserved: Be16::default(),
    }
}

fn number16(bytes: &[u8]) -> u16 {
    u16::from(bytes[0]) * 256 + u16::from(bytes[1])
}
