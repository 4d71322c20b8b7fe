//! What the lane counts per conversation, in the same terms as the kernel programs, for [`super::Trace`].

use super::LaneReason;
use super::maps::{ANSWER_TIME, AnswerKey, MAX_ANSWERS, MAX_TRACED, TraceCount, TraceKey};
use crate::wire::Be32;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Counts per conversation, and answers.
#[derive(Debug, Default)]
pub(super) struct Tally {
    counts: HashMap<TraceKey, TraceCount>,
    asked: HashMap<u16, Instant>,
    answers: HashMap<AnswerKey, u64>,
}

impl Tally {
    /// A packet of this device to everybody, from that port.
    pub fn asked(&mut self, key: TraceKey, source_port: u16, now: Instant) {
        let old = |at: &Instant| now.saturating_duration_since(*at) < Duration::from_nanos(ANSWER_TIME);
        if self.asked.len() >= MAX_ANSWERS as usize && !self.asked.contains_key(&source_port) {
            self.asked.retain(|_, at| old(at));
        }
        if self.asked.len() < MAX_ANSWERS as usize {
            self.asked.insert(source_port, now);
        }
        self.seen(key, source_port);
    }

    /// A packet of this device, or one of a member that has arrived.
    pub fn seen(&mut self, key: TraceKey, source_port: u16) {
        if let Some(count) = self.count(key) {
            count.packets += 1;
            count.source_port = source_port.into();
        }
    }

    /// Copies of the packet that was counted last.
    pub fn copied(&mut self, key: TraceKey, copies: u64) {
        if let Some(count) = self.counts.get_mut(&key) {
            count.copies += copies;
        }
    }

    /// The packet was not carried.
    pub fn dropped(&mut self, key: TraceKey, reason: LaneReason) {
        if let Some(count) = self.count(key) {
            count.dropped += 1;
            count.reason = reason.index() + 1;
        }
    }

    fn count(&mut self, key: TraceKey) -> Option<&mut TraceCount> {
        let has_room = self.counts.len() < MAX_TRACED as usize || self.counts.contains_key(&key);
        has_room.then(|| self.counts.entry(key).or_default())
    }

    /// A packet of a member to this device alone: an answer when its port asked lately.
    pub fn received(&mut self, member: Be32, port: u16, from_port: u16, now: Instant) {
        let asked = self.asked.get(&port);
        if asked.is_none_or(|at| now.saturating_duration_since(*at) >= Duration::from_nanos(ANSWER_TIME)) {
            return;
        }
        let key = AnswerKey { member, port, from_port };
        if self.answers.len() >= MAX_ANSWERS as usize && !self.answers.contains_key(&key) {
            self.answers.clear();
        }
        *self.answers.entry(key).or_default() += 1;
    }

    /// All counts.
    pub fn counts(&self) -> impl Iterator<Item = (TraceKey, TraceCount)> {
        self.counts.iter().map(|(key, count)| (*key, *count))
    }

    /// All answers.
    pub fn answers(&self) -> impl Iterator<Item = (AnswerKey, u64)> {
        self.answers.iter().map(|(key, count)| (*key, *count))
    }

    /// Makes room.
    pub fn forget(&mut self, key: &TraceKey) {
        self.counts.remove(key);
    }
}
