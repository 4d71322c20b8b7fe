//! The discovery trace's counts: one map entry for each conversation, which the daemon reads and removes.

use crate::maps;
use crate::packet::Packet;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::programs::TcContext;
use lanrage_common::lane::LaneReason;
use lanrage_common::lane::maps::{ANSWER_TIME, AnswerKey, LaneLocal, TraceCount, TraceKey};
use lanrage_common::wire::{Address, Be32};

/// A conversation's counts, or none when there is no room.
#[derive(Clone, Copy)]
pub struct Traced(Option<*mut TraceCount>);

impl Traced {
    /// The conversation of a packet that `source` sends to everybody. One without ports has none.
    #[inline(always)]
    pub fn of(packet: &Packet, source: Be32, destination: &Address) -> Self {
        if !packet.has_udp() {
            return Self(None);
        }
        let key = TraceKey { destination: *destination, source, port: u32::from(packet.facts.port) };
        if let Some(count) = maps::traced(&key) {
            return Self(Some(count));
        }
        Self(maps::trace(&key))
    }

    /// Counts a packet from that port.
    #[inline(always)]
    pub fn count(self, source_port: u16) {
        if let Some(count) = self.0 {
            // SAFETY: an entry in memory that lives as long as the map. Two CPUs at once lose one of two counts.
            unsafe {
                (*count).packets += 1;
                (*count).source_port = u32::from(source_port);
            }
        }
    }

    /// Counts copies.
    #[inline(always)]
    pub fn copied(self, copies: u32) {
        if let Some(count) = self.0 {
            // SAFETY: as above.
            unsafe { (*count).copies += u64::from(copies) };
        }
    }

    /// Counts a packet that is not carried.
    #[inline(always)]
    pub fn dropped(self, reason: LaneReason) {
        if let Some(count) = self.0 {
            // SAFETY: as above.
            unsafe {
                (*count).dropped += 1;
                (*count).reason = reason.index() + 1;
            }
        }
    }
}

/// UDP's source port.
#[inline(always)]
pub fn source_port(skb: &TcContext, packet: &Packet) -> u16 {
    skb.load::<u16>(packet.transport() as usize).map_or(0, u16::from_be)
}

/// Remembers that this device asks everybody from that port.
#[inline(always)]
pub fn asked(source_port: u16) {
    // SAFETY: a helper without arguments.
    maps::ask(u32::from(source_port), unsafe { bpf_ktime_get_ns() });
}

/// Counts a packet of a member to this device alone, when it goes to a port that asked lately.
#[inline(always)]
pub fn answer(skb: &TcContext, local: &LaneLocal, packet: &Packet) {
    let Some(at) = maps::asked(u32::from(packet.facts.port)) else { return };
    // SAFETY: a helper without arguments.
    let is_late = unsafe { bpf_ktime_get_ns() }.wrapping_sub(at) >= ANSWER_TIME;
    let member = packet.facts.source.v4_word();
    if is_late || member == local.address {
        return;
    }
    let from_port = source_port(skb, packet);
    let key = AnswerKey { member, port: packet.facts.port, from_port };
    match maps::answers(&key) {
        // SAFETY: as above.
        Some(count) => unsafe { *count += 1 },
        None => maps::first_answer(&key),
    }
}
