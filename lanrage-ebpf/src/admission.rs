//! Who may send how much: members by their own buckets, all of them by the relay's, strangers hardly at all.

use crate::maps;
use lanrage_common::maps::{Local, MemberState, SourceKey};
use lanrage_common::police::{CONTROL, PROBES};
use lanrage_common::reason::{Budget, Reason};

/// Takes a data packet of that many bytes out of the member's and the relay's budget.
#[inline(always)]
pub fn spend(local: &'static Local, slot: u32, bytes: u64, now: u64) -> Result<(), Reason> {
    let spent = match maps::member(slot) {
        Some(member) => spend_member(local, member, bytes, now),
        // More members than the table has places go unpoliced by themselves, as without a limit.
        None => spend_global(local, bytes, now),
    };
    if spent.is_err() {
        maps::count_dropped(slot);
    }
    spent
}

#[inline(always)]
fn spend_member(local: &'static Local, member: &mut MemberState, bytes: u64, now: u64) -> Result<(), Reason> {
    let packets = member.packets.take(1, now).ok_or(Reason::RateMember)?;
    let octets = member.bytes.take(bytes, now).ok_or(Reason::RateMember)?;
    spend_global(local, bytes, now)?;
    if member.packets.rate.cost != 0 {
        member.packets.full_at = packets;
    }
    if member.bytes.rate.cost != 0 {
        member.bytes.full_at = octets;
    }
    Ok(())
}

#[inline(always)]
fn spend_global(local: &'static Local, bytes: u64, now: u64) -> Result<(), Reason> {
    if local.packets.cost == 0 && local.bytes.cost == 0 {
        return Ok(());
    }
    if spend_credit(local, bytes, now) { Ok(()) } else { Err(Reason::RateGlobal) }
}

/// Takes from what this CPU holds, and fetches more when that is not enough: in chunks, so that CPUs seldom meet.
#[inline(never)]
fn spend_credit(local: &'static Local, bytes: u64, now: u64) -> bool {
    let (Some(global), Some(credit)) = (maps::global(), maps::credit()) else { return true };
    if local.packets.cost != 0 && credit.packets == 0 {
        let chunk = u64::from(local.packets_chunk);
        let Some(full_at) = local.packets.take(global.packets_full_at, chunk, now) else { return false };
        global.packets_full_at = full_at;
        credit.packets = chunk;
    }
    if local.bytes.cost != 0 && credit.bytes < bytes {
        let chunk = u64::from(local.bytes_chunk);
        let Some(full_at) = local.bytes.take(global.bytes_full_at, chunk, now) else { return false };
        global.bytes_full_at = full_at;
        credit.bytes += chunk;
    }
    credit.packets = credit.packets.saturating_sub(1);
    credit.bytes = credit.bytes.saturating_sub(bytes);
    true
}

/// Whether what is no forwarded data may go up to the daemon; an error says why not.
#[inline(never)]
pub fn check(local: &'static Local, source: &SourceKey, budget: Budget, bytes: u64) -> Result<(), Reason> {
    let now = maps::now(local);
    if budget == Budget::Stun && has_stun_budget(local, now) {
        return Ok(());
    }
    let (slot, member) = match maps::bound(source) {
        Some(slot) => (slot, maps::member(slot)),
        None if budget == Budget::Stun => return Err(Reason::StunFlood),
        None => return Err(Reason::Unbound),
    };
    let Some(member) = member else { return Ok(()) };
    let taken = take(member, budget, bytes, now);
    if taken.is_err() {
        maps::count_dropped(slot);
    }
    taken
}

#[inline(always)]
fn take(member: &mut MemberState, budget: Budget, bytes: u64, now: u64) -> Result<(), Reason> {
    match budget {
        Budget::Data => {
            let packets = member.packets.take(1, now).ok_or(Reason::RateMember)?;
            member.bytes.full_at = member.bytes.take(bytes, now).ok_or(Reason::RateMember)?;
            member.packets.full_at = packets;
        }
        Budget::Probes => {
            member.probes_full_at = PROBES.take(member.probes_full_at, 1, now).ok_or(Reason::RateProbe)?;
        }
        Budget::Control => {
            member.control_full_at =
                CONTROL.take(member.control_full_at, 1, now).ok_or(Reason::RateHandshake)?;
        }
        Budget::Stun => {
            member.control_full_at = CONTROL.take(member.control_full_at, 1, now).ok_or(Reason::StunFlood)?;
        }
    }
    Ok(())
}

#[inline(always)]
fn has_stun_budget(local: &'static Local, now: u64) -> bool {
    if local.stun.cost == 0 {
        return true;
    }
    let Some(credit) = maps::credit() else { return true };
    match local.stun.take(credit.stun_full_at, 1, now) {
        Some(full_at) => {
            credit.stun_full_at = full_at;
            true
        }
        None => false,
    }
}
