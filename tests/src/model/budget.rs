//! The model's budgets: how full a bucket is, instead of when it will be full.

use super::Model;
use super::frame::Packet;
use lanrage_common::maps::MemberState;
use lanrage_common::police::{Bucket, Rate};
use lanrage_common::reason::Reason;

/// 100 handshakes a second, 600 at once; 300 probes a second, 600 at once.
const CONTROL: Rate = Rate { cost: 10_240_000_000, depth: 6_000_000_000 };
const PROBES: Rate = Rate { cost: 3_413_333_333, depth: 1_999_999_999 };

/// What `full_at` is after `tokens` more, if the bucket holds them.
fn take(rate: Rate, full_at: u64, tokens: u64, now: u64) -> Option<u64> {
    if rate.cost == 0 {
        return Some(full_at);
    }
    let missing = u128::from(full_at.saturating_sub(now)) + u128::from(rate.cost) * u128::from(tokens) / 1024;
    (missing <= u128::from(rate.depth)).then(|| now + missing as u64)
}

fn take_bucket(bucket: Bucket, tokens: u64, now: u64) -> Option<Bucket> {
    take(bucket.rate, bucket.full_at, tokens, now).map(|full_at| Bucket { full_at, ..bucket })
}

impl Model {
    pub(super) fn spend(&mut self, slot: usize, bytes: u64) -> Result<(), Reason> {
        let Some(member) = self.members.get(slot).copied() else { return self.spend_global(bytes) };
        let member = self.data(member, bytes)?;
        self.spend_global(bytes)?;
        self.members[slot] = member;
        Ok(())
    }

    fn data(&self, member: MemberState, bytes: u64) -> Result<MemberState, Reason> {
        let packets = take_bucket(member.packets, 1, self.now).ok_or(Reason::RateMember)?;
        let bytes = take_bucket(member.bytes, bytes, self.now).ok_or(Reason::RateMember)?;
        Ok(MemberState { packets, bytes, ..member })
    }

    fn spend_global(&mut self, bytes: u64) -> Result<(), Reason> {
        let (now, limits_packets, limits_bytes) = (self.now, self.packets.cost > 0, self.bytes.cost > 0);
        if limits_packets && self.credit.packets < 1 {
            let full_at = take(self.packets, self.global.packets_full_at, self.packets_chunk, now);
            self.global.packets_full_at = full_at.ok_or(Reason::RateGlobal)?;
            self.credit.packets += self.packets_chunk;
        }
        if limits_bytes && self.credit.bytes < bytes {
            let full_at = take(self.bytes, self.global.bytes_full_at, self.bytes_chunk, now);
            self.global.bytes_full_at = full_at.ok_or(Reason::RateGlobal)?;
            self.credit.bytes += self.bytes_chunk;
        }
        if limits_packets || limits_bytes {
            self.credit.packets = self.credit.packets.saturating_sub(1);
            self.credit.bytes = self.credit.bytes.saturating_sub(bytes);
        }
        Ok(())
    }

    /// The reason that remains once the sender's budget has been asked.
    pub(super) fn admit(&mut self, packet: &Packet<'_>, reason: Reason) -> Reason {
        let now = self.now;
        let (is_stun, is_probe, is_data) =
            (reason == Reason::StunPassed, reason == Reason::Probe, reason == Reason::NoFlow);
        let is_control = matches!(
            reason,
            Reason::NotData
                | Reason::Reserved
                | Reason::ShortData
                | Reason::TtlExpired
                | Reason::IpLength
                | Reason::UdpLength
        );
        if !(is_stun || self.strict && (is_probe || is_data || is_control)) {
            return reason;
        }
        if is_stun && let Some(full_at) = take(self.stun, self.credit.stun_full_at, 1, now) {
            self.credit.stun_full_at = full_at;
            return reason;
        }
        let Some(slot) = self.sources.get(&packet.source_key()).map(|slot| *slot as usize) else {
            return if is_stun { Reason::StunFlood } else { Reason::Unbound };
        };
        let Some(member) = self.members.get(slot).copied() else { return reason };
        let member = if is_data {
            self.data(member, packet.declared_payload())
        } else if is_probe {
            let full_at = take(PROBES, member.probes_full_at, 1, now).ok_or(Reason::RateProbe);
            full_at.map(|probes_full_at| MemberState { probes_full_at, ..member })
        } else {
            let why = if is_stun { Reason::StunFlood } else { Reason::RateHandshake };
            let full_at = take(CONTROL, member.control_full_at, 1, now).ok_or(why);
            full_at.map(|control_full_at| MemberState { control_full_at, ..member })
        };
        match member {
            Ok(member) => {
                self.members[slot] = member;
                reason
            }
            Err(why) => {
                self.count_dropped(slot);
                why
            }
        }
    }
}
