//! The discovery trace at work: what the lane counts is looked at twice a second, and members are told what arrived.

use super::event_loop::Peer;
use super::session::Session;
use super::wire::Io;
use crate::games::Games;
use crate::lane::{Carrier, sockets};
use lanrage_common::api::{LaneConversation, PathKind};
use lanrage_common::lane::{TRACE_INTERVAL, TraceMember};
use lanrage_common::time::Now;

impl Peer {
    /// Looks at the lane's counts.
    pub(super) fn follow_trace(&mut self, now: Now) {
        self.trace_due = now.instant + TRACE_INTERVAL;
        let io = Io { socket: &self.sends, interface: self.interface.as_ref() };
        if let (Some(lane), Some(session)) = (&mut self.lane, &mut self.session) {
            session.follow_trace(lane, now);
            session.settle(io, now);
        }
    }
}

impl Session {
    fn follow_trace(&mut self, lane: &mut Carrier, now: Now) {
        self.trace.handle_counts(&lane.traced(&self.lane), now);
        self.trace.handle_answers(&lane.answers(&self.lane), now);
        for key in self.trace.idle(now.instant) {
            lane.forget(&mut self.lane, &key);
        }
        if self.trace.wants_sockets(now.instant)
            && let Some(sockets) = sockets()
        {
            self.trace.handle_sockets(&sockets);
        }
        self.trace.handle_timeout(now.instant);
    }

    /// What there is to show; `name` is this device's, `games` are those that have names.
    pub(super) fn conversations(&self, name: &str, games: &Games) -> Vec<LaneConversation> {
        let describe = |entry: &lanrage_common::identity::RosterEntry| TraceMember {
            address: entry.address,
            name: entry.name.clone(),
            joined: self
                .board
                .joined()
                .find(|(it, _)| *it == entry.address)
                .map(|(_, groups)| groups.clone()),
            is_reachable: self.paths.status(&entry.wg).is_some_and(|path| path.kind != PathKind::None),
        };
        let mut found =
            self.trace.conversations(name, &self.party.members().map(describe).collect::<Vec<_>>());
        for conversation in &mut found {
            conversation.games = games.at_port(conversation.port).map(str::to_owned).collect();
        }
        found
    }
}
