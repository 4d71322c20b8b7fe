//! What a hunt that is on has open, asked and aimed at.

use super::TRY;
use super::plan::{Anchor, Plan, Role, Scatter};
use crate::nat::How;
use crate::path::shared::Shared;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Instant;

/// A hunt that is on.
#[derive(Debug)]
pub(super) struct Chase {
    pub(super) plan: Plan,
    pub(super) until: Instant,
    /// Own ports of the sockets that are open.
    pub(super) sockets: Vec<u16>,
    /// Questions to a relay after the mapping of a socket.
    pub(super) asks: Vec<Ask>,
    /// Where the member shall aim.
    pub(super) told: Option<SocketAddr>,
    pub(super) tell_next: Option<Instant>,
    /// Where the member said to aim, and where in the round before.
    pub(super) aim: Option<SocketAddr>,
    pub(super) old_aim: Option<SocketAddr>,
    pub(super) shots: VecDeque<Shot>,
    pub(super) repeat: Instant,
    pub(super) round_ends: Instant,
    pub(super) scatter: Option<Scatter>,
    /// Sequences of probes that the sockets have sent.
    pub(super) sequences: Range<u64>,
}

#[derive(Debug)]
pub(super) struct Ask {
    pub(super) socket: usize,
    pub(super) transaction: [u8; 12],
    pub(super) seen: Option<SocketAddr>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Shot {
    /// Ask a relay for the mapping of a socket.
    Ask(usize),
    /// Probe from a socket, or from the tunnel's.
    Probe { from: Option<usize>, to: SocketAddr },
}

impl Chase {
    pub(super) fn new(plan: Plan, shared: &mut Shared, sequence: u64, now: Instant) -> Self {
        let is_random = (plan.how, plan.role) == (How::Birthday, Role::Shooter);
        Self {
            plan,
            until: now + TRY,
            sockets: Vec::new(),
            asks: Vec::new(),
            told: None,
            tell_next: None,
            aim: None,
            old_aim: None,
            shots: VecDeque::new(),
            repeat: now,
            round_ends: now,
            scatter: is_random.then(|| Scatter::new(shared.rng.as_mut())),
            sequences: sequence..sequence,
        }
    }

    fn anchor(&self, socket: usize) -> Option<(Anchor, SocketAddr)> {
        let seen = self.asks.iter().find(|ask| ask.socket == socket)?.seen?;
        Some((Anchor { local: *self.sockets.get(socket)?, seen: seen.port() }, seen))
    }

    /// Where the member shall aim, once the answers tell it.
    pub(super) fn expect(&self) -> Option<SocketAddr> {
        let (anchor, seen) = self.anchor(0)?;
        let port = self.plan.predict(*self.sockets.get(1)?, anchor)?;
        Some(SocketAddr::new(seen.ip(), port))
    }

    /// Queues what is sent again and again.
    pub(super) fn load(&mut self, target: Option<SocketAddr>) {
        let unanswered = self.asks.iter().filter(|ask| ask.seen.is_none()).map(|ask| Shot::Ask(ask.socket));
        self.shots.extend(unanswered);
        let aim = match self.plan.role {
            Role::Opener => target,
            Role::Both | Role::Shooter => self.aim,
        };
        let Some(to) = aim else { return };
        match (self.plan.role, self.plan.how) {
            (Role::Shooter, _) => {
                let window = self.plan.window(to.port()).map(|port| SocketAddr::new(to.ip(), port));
                self.shots.extend(window.map(|to| Shot::Probe { from: None, to }));
            }
            (_, How::Birthday) => {}
            _ => {
                let hunters = 1..self.sockets.len();
                self.shots.extend(hunters.map(|at| Shot::Probe { from: Some(at), to }));
            }
        }
    }

    pub(super) fn next_shot(&mut self, target: Option<SocketAddr>) -> Option<Shot> {
        let shot = self.shots.pop_front();
        shot.or_else(|| {
            let (scatter, target) = (self.scatter.as_mut()?, target?);
            Some(Shot::Probe { from: None, to: SocketAddr::new(target.ip(), scatter.next_port()) })
        })
    }
}
