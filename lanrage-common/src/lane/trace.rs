//! The discovery trace: what programs say to everybody, and how far it came. Seen here, copied to members, delivered there
//! (as the members say), answered. Holds addresses, ports and counts, never what was said.

use super::diagnosis::{self, Case};
use super::maps::{AnswerKey, TraceCount, TraceKey};
use super::membership::is_selective;
use super::report::{Arrival, MAX_ENTRIES, Report};
use super::{LaneReason, Sockets};
use crate::api::{LaneConversation, LaneListener, LaneReceiver, LaneRung};
use crate::bucket::{Bucket, Rate};
use crate::time::Now;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

/// Conversations that are shown; the one that is silent longest gives way.
pub const MAX_CONVERSATIONS: usize = 64;
/// How often [`Trace::handle_timeout`] wants to run, after the counts.
pub const TRACE_INTERVAL: Duration = Duration::from_millis(500);
/// What is silent for so long is shown no more.
const SHOWN: Duration = Duration::from_secs(600);
/// A count that has not changed for so long may be forgotten: it begins anew.
const IDLE: Duration = Duration::from_secs(30);
/// Answers belong to questions of this last time; the counts are a moment old.
const ANSWER_TIME: Duration = Duration::from_secs(8);
/// Each report is sent so often: it could be lost, or come before the sender has looked at its own counts.
const REPEATS: u8 = 4;
/// Reports that one member may send.
const REPORTS: Rate = Rate::per_second(10, 20);

/// Sender, destination, UDP destination port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    from: Ipv4Addr,
    destination: IpAddr,
    port: u16,
}

#[derive(Debug, Default)]
struct Conversation {
    total: TraceCount,
    /// When a packet was counted last: here, and in Unix seconds.
    last: Option<Instant>,
    last_unix: u64,
    listener: LaneListener,
    /// What the sender was told, and how often.
    told: (u64, LaneListener, u8),
    members: BTreeMap<Ipv4Addr, AtMember>,
}

#[derive(Debug, Clone, Copy, Default)]
struct AtMember {
    delivered: Option<u64>,
    listener: LaneListener,
    answered: u64,
}

/// A member, for [`Trace::conversations`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceMember {
    /// Overlay address.
    pub address: Ipv4Addr,
    /// Name.
    pub name: String,
    /// Whether there is a path to it.
    pub is_reachable: bool,
    /// The groups that it has joined, if it has said so.
    pub joined: Option<BTreeSet<IpAddr>>,
}

/// See the module.
#[derive(Debug)]
pub struct Trace {
    me: Ipv4Addr,
    members: BTreeSet<Ipv4Addr>,
    counts: HashMap<TraceKey, (TraceCount, Instant)>,
    answers: HashMap<AnswerKey, u64>,
    conversations: BTreeMap<Key, Conversation>,
    reports: BTreeMap<Ipv4Addr, Bucket>,
    outputs: VecDeque<(Ipv4Addr, Report)>,
    due: Option<Instant>,
}

impl Trace {
    /// An empty trace of the device with that overlay address.
    pub fn new(me: Ipv4Addr) -> Self {
        Self {
            me,
            members: BTreeSet::new(),
            counts: HashMap::new(),
            answers: HashMap::new(),
            conversations: BTreeMap::new(),
            reports: BTreeMap::new(),
            outputs: VecDeque::new(),
            due: None,
        }
    }

    /// All that the lane has counted by now.
    pub fn handle_counts(&mut self, counts: &[(TraceKey, TraceCount)], now: Now) {
        let mut before = std::mem::take(&mut self.counts);
        for (key, count) in counts {
            let known = before.remove(key).filter(|(old, _)| old.packets <= count.packets);
            let (old, changed) = known.unwrap_or((TraceCount::default(), now.instant));
            let changed = if old == *count { changed } else { now.instant };
            self.counts.insert(*key, (*count, changed));
            if old != *count {
                self.add(key, &old, count, now);
            }
        }
    }

    fn add(&mut self, key: &TraceKey, old: &TraceCount, new: &TraceCount, now: Now) {
        let key = Key {
            from: Ipv4Addr::from(key.source.octets()),
            destination: key.destination.into(),
            port: key.port as u16,
        };
        self.make_room(&key, now.instant);
        let conversation = self.conversations.entry(key).or_default();
        let total = &mut conversation.total;
        total.packets += new.packets - old.packets;
        total.copies += new.copies.saturating_sub(old.copies);
        total.dropped += new.dropped.saturating_sub(old.dropped);
        total.source_port = new.source_port;
        total.reason = new.reason;
        (conversation.last, conversation.last_unix) = (Some(now.instant), now.unix);
    }

    fn make_room(&mut self, key: &Key, now: Instant) {
        self.conversations
            .retain(|_, it| it.last.is_some_and(|last| now.saturating_duration_since(last) < SHOWN));
        if self.conversations.len() < MAX_CONVERSATIONS || self.conversations.contains_key(key) {
            return;
        }
        let oldest = self.conversations.iter().min_by_key(|(_, it)| it.last).map(|(key, _)| *key);
        if let Some(oldest) = oldest {
            self.conversations.remove(&oldest);
        }
    }

    /// Counts that the lane may forget, after [`Trace::handle_counts`].
    pub fn idle(&self, now: Instant) -> impl Iterator<Item = TraceKey> {
        let is_idle = move |changed: &Instant| now.saturating_duration_since(*changed) >= IDLE;
        self.counts.iter().filter(move |(_, (_, changed))| is_idle(changed)).map(|(key, _)| *key)
    }

    /// All packets of members to ports that asked, counted by now. One from the port that was asked belongs to that question;
    /// any other to all that came from the port.
    pub fn handle_answers(&mut self, answers: &[(AnswerKey, u64)], now: Now) {
        let before = std::mem::take(&mut self.answers);
        for (key, count) in answers {
            let old = before.get(key).copied().filter(|old| old <= count).unwrap_or(0);
            self.answers.insert(*key, *count);
            if *count > old {
                self.answer(key, *count - old, now.instant);
            }
        }
    }

    fn answer(&mut self, key: &AnswerKey, count: u64, now: Instant) {
        let me = self.me;
        let is_recent = |last: Option<Instant>| {
            last.is_some_and(|last| now.saturating_duration_since(last) < ANSWER_TIME)
        };
        let mut asked: Vec<_> = self
            .conversations
            .iter_mut()
            .filter(|(own, it)| {
                own.from == me && it.total.source_port == u32::from(key.port) && is_recent(it.last)
            })
            .collect();
        let is_exact = asked.iter().any(|(own, _)| own.port == key.from_port);
        for (own, conversation) in &mut asked {
            if !is_exact || own.port == key.from_port {
                let member = Ipv4Addr::from(key.member.octets());
                conversation.members.entry(member).or_default().answered += count;
            }
        }
    }

    /// A report of the member at `from`, proven by the tunnel. Says whether it was taken.
    pub fn handle_report(&mut self, from: Ipv4Addr, payload: &[u8], now: Instant) -> bool {
        let allowance = self.reports.entry(from).or_insert_with(|| Bucket::new(REPORTS));
        if !allowance.take(1, now) {
            return false;
        }
        let Some(Report::Arrivals(arrivals)) = Report::parse(payload) else { return false };
        for arrival in arrivals {
            let key = Key { from: self.me, destination: arrival.destination, port: arrival.port };
            if let Some(conversation) = self.conversations.get_mut(&key) {
                let at = conversation.members.entry(from).or_default();
                (at.delivered, at.listener) = (Some(arrival.packets.into()), arrival.listener);
            }
        }
        true
    }

    /// Who listens on this machine.
    pub fn handle_sockets(&mut self, sockets: &Sockets) {
        let me = self.me;
        for (key, conversation) in self.conversations.iter_mut().filter(|(key, _)| key.from != me) {
            conversation.listener = sockets.listener(key.destination, key.port);
        }
    }

    /// Whether it matters who listens on this machine: something of another device has come lately.
    pub fn wants_sockets(&self, now: Instant) -> bool {
        let is_recent = |last: Instant| now.saturating_duration_since(last) < IDLE;
        self.conversations.iter().any(|(key, it)| key.from != self.me && it.last.is_some_and(is_recent))
    }

    /// Replaces the members: who reports, and is reported to. Forgets what was of others.
    pub fn set_members(&mut self, members: impl IntoIterator<Item = Ipv4Addr>) {
        self.members = members.into_iter().collect();
        let is_there = |address: &Ipv4Addr| self.members.contains(address);
        self.reports.retain(|address, _| is_there(address));
        self.conversations.retain(|key, _| key.from == self.me || is_there(&key.from));
        for conversation in self.conversations.values_mut() {
            conversation.members.retain(|address, _| is_there(address));
        }
    }

    /// Tells the senders what has arrived.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.due = Some(now + TRACE_INTERVAL);
        let mut arrivals: BTreeMap<Ipv4Addr, Vec<Arrival>> = BTreeMap::new();
        for (key, conversation) in &mut self.conversations {
            let Conversation { total, listener, told, .. } = conversation;
            if !self.members.contains(&key.from)
                || (told.0, told.1) == (total.packets, *listener) && told.2 >= REPEATS
            {
                continue;
            }
            let report = arrivals.entry(key.from).or_default();
            if report.len() == MAX_ENTRIES {
                continue;
            }
            let is_same = (told.0, told.1) == (total.packets, *listener);
            *told = (total.packets, *listener, if is_same { told.2 + 1 } else { 1 });
            report.push(Arrival {
                destination: key.destination,
                port: key.port,
                packets: total.packets as u32,
                listener: *listener,
            });
        }
        self.outputs.extend(arrivals.into_iter().map(|(to, arrivals)| (to, Report::Arrivals(arrivals))));
    }

    /// When [`Trace::handle_timeout`] is due; none before it ran first.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// The next packet for a member, from this device's overlay address to its.
    pub fn poll_output(&mut self) -> Option<Vec<u8>> {
        let (to, report) = self.outputs.pop_front()?;
        Some(report.packet(self.me, to))
    }

    /// What there is to show: this device's own, then the others', each with the latest first.
    pub fn conversations(&self, name: &str, members: &[TraceMember]) -> Vec<LaneConversation> {
        let mut keys: Vec<_> = self.conversations.iter().collect();
        keys.sort_by_key(|(key, it)| (key.from != self.me, std::cmp::Reverse(it.last_unix), **key));
        keys.into_iter().map(|(key, it)| self.describe(key, it, name, members)).collect()
    }

    fn describe(
        &self,
        key: &Key,
        conversation: &Conversation,
        name: &str,
        members: &[TraceMember],
    ) -> LaneConversation {
        let own = key.from == self.me;
        let total = &conversation.total;
        let reason = total.reason.checked_sub(1).and_then(|at| LaneReason::ALL.get(at as usize)).copied();
        let case = Case { destination: key.destination, port: key.port, total, reason };
        let receivers: Vec<LaneReceiver> = match own && total.copies > 0 {
            true => members.iter().map(|member| receiver(&case, conversation, member)).collect(),
            false => Vec::new(),
        };
        let best = receivers.iter().max_by_key(|receiver| {
            (receiver.rung, receiver.listener == LaneListener::Listening, receiver.delivered)
        });
        let (rung, missing) = match (own, best) {
            (true, Some(best)) => (best.rung, best.missing.clone()),
            (true, None) => (LaneRung::Seen, diagnosis::not_copied(&case)),
            (false, _) if total.packets == 0 => (LaneRung::Copied, diagnosis::not_copied(&case)),
            (false, _) => (LaneRung::Delivered, diagnosis::here(&case, conversation.listener)),
        };
        let sender = members.iter().find(|member| member.address == key.from);
        LaneConversation {
            from: key.from,
            name: if own {
                name.into()
            } else {
                sender.map_or_else(|| key.from.to_string(), |it| it.name.clone())
            },
            own,
            destination: key.destination,
            port: key.port,
            games: Vec::new(),
            seen: total.packets,
            copied: total.copies,
            dropped: total.dropped,
            reason: reason.map(|reason| reason.name().to_owned()),
            last: conversation.last_unix,
            rung,
            listener: conversation.listener,
            missing,
            receivers,
        }
    }
}

fn receiver(case: &Case<'_>, conversation: &Conversation, member: &TraceMember) -> LaneReceiver {
    let at = conversation.members.get(&member.address).copied().unwrap_or_default();
    let rung = if at.answered > 0 {
        LaneRung::Answered
    } else if at.delivered.is_some() {
        LaneRung::Delivered
    } else {
        LaneRung::Copied
    };
    let joined = member.joined.as_ref().filter(|_| is_selective(case.destination));
    let joined = joined.map(|groups| groups.contains(&case.destination));
    LaneReceiver {
        member: member.address,
        name: member.name.clone(),
        delivered: at.delivered,
        listener: at.listener,
        joined,
        answered: at.answered,
        rung,
        missing: diagnosis::there(case, member, joined, rung, (at.delivered, at.listener)),
    }
}

#[cfg(test)]
mod tests;
