//! Opens, asks, aims and shoots: what a hunt sends, and what comes of it.

use super::chase::{Ask, Shot};
use super::plan::Role;
use crate::binding::{BehaviourAnswer, binding_request, parse_behaviour_answer};
use crate::nat::How;
use crate::path::Output;
use crate::path::announce::MAX_CANDIDATES;
use crate::path::candidate::CandidateKind;
use crate::path::pair::{Active, Pair};
use crate::path::probe::{self, Kind, Probe};
use crate::path::route::Route;
use crate::path::shared::Shared;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Sockets when ports are random.
const SOCKETS: usize = 256;
/// Sockets that are aimed at one port of the member when both routers change ports.
const HUNTERS: usize = 10;
/// A round of prediction: then new sockets are opened.
const ROUND: Duration = Duration::from_millis(1500);
/// The same packets again.
const REPEAT: Duration = Duration::from_millis(350);

impl Pair {
    /// Opens the sockets of a new round when the last one is over.
    pub fn next_round(&mut self, shared: &mut Shared, now: Instant) {
        let Some(chase) = &mut self.hunt.chase else { return };
        if now < chase.round_ends {
            return;
        }
        let count = match (chase.plan.role, chase.plan.how) {
            (Role::Shooter, _) => {
                chase.round_ends = chase.until;
                return;
            }
            (Role::Both, _) if !chase.plan.leads && chase.aim.is_none() => return,
            (Role::Both, _) => 1 + HUNTERS,
            (Role::Opener, How::Birthday) => SOCKETS,
            // one to ask for, one to shoot from
            (Role::Opener, _) => 2,
        };
        let is_single = (chase.plan.how, chase.plan.leads) != (How::Predicted, true);
        chase.round_ends = if is_single { chase.until } else { now + ROUND };
        if chase.plan.leads {
            chase.old_aim = chase.aim.take().or(chase.old_aim);
        }
        (chase.told, chase.tell_next) = (None, None);
        chase.sockets.clear();
        chase.asks.clear();
        chase.shots.clear();
        shared.outputs.push_back(Output::OpenSpares { member: self.member, count });
    }

    /// The sockets are open.
    pub fn handle_spares(&mut self, ports: &[u16], shared: &mut Shared, now: Instant) {
        let target = self.target();
        let Some(chase) = &mut self.hunt.chase else {
            return shared.outputs.push_back(Output::CloseSpares { member: self.member });
        };
        chase.sockets = ports.to_vec();
        chase.sockets.truncate(SOCKETS);
        if ports.len() < 2 {
            shared.count("hunt_without_sockets");
            chase.until = now;
        }
        match (chase.plan.how, target) {
            (How::Birthday, Some(to)) => {
                let all = 0..chase.sockets.len();
                chase.shots = all.map(|at| Shot::Probe { from: Some(at), to }).collect();
            }
            _ => {
                let mut transaction = [0; 12];
                shared.rng.fill_bytes(&mut transaction);
                chase.asks.push(Ask { socket: 0, transaction, seen: None });
            }
        }
        chase.repeat = now;
        self.hunt.due = Some(now);
    }

    /// Sends what the budget allows.
    pub fn shoot(&mut self, shared: &mut Shared, now: Instant) {
        let target = self.target();
        if let Some(chase) =
            self.hunt.chase.as_mut().filter(|chase| chase.repeat <= now && chase.shots.is_empty())
        {
            chase.repeat = now + REPEAT;
            chase.load(target);
        }
        while shared.hunt_budget.wait(1, now).is_zero() {
            let Some(shot) = self.hunt.chase.as_mut().and_then(|chase| chase.next_shot(target)) else {
                return;
            };
            shared.hunt_budget.take(1, now);
            shared.count("hunt_sent");
            self.fire(shot, shared);
        }
    }

    fn fire(&mut self, shot: Shot, shared: &mut Shared) {
        let member = self.member;
        match shot {
            Shot::Ask(socket) => {
                let asks = self.hunt.chase.iter().flat_map(|chase| &chase.asks);
                let ask = asks.into_iter().find(|ask| ask.socket == socket);
                if let (Some(ask), Some(to)) = (ask, shared.stun_server()) {
                    let payload = binding_request(ask.transaction);
                    shared.outputs.push_back(Output::TransmitFrom { member, spare: socket, to, payload });
                }
            }
            Shot::Probe { from, to } => {
                self.sequence += 1;
                let ping = Probe { sequence: self.sequence, ..self.probe(Kind::Ping) };
                if let Some(chase) = &mut self.hunt.chase {
                    chase.sequences.end = self.sequence + 1;
                }
                let payload = self.seal(&ping, shared);
                shared.outputs.push_back(match from {
                    Some(spare) => Output::TransmitFrom { member, spare, to, payload },
                    None => Output::Transmit { to, payload },
                });
            }
        }
    }

    /// Tells the member where to aim, until it has.
    pub fn tell_aim(&mut self, shared: &mut Shared, now: Instant) {
        let Some(chase) = &mut self.hunt.chase else { return };
        if chase.told.is_none_or(|_| chase.tell_next.is_none_or(|next| next > now)) {
            return;
        }
        chase.tell_next = Some(now + REPEAT);
        let aim = chase.told;
        self.call(aim, shared, now);
    }

    /// A datagram came to one of the sockets.
    pub fn handle_spare_datagram(
        &mut self,
        spare: usize,
        from: SocketAddr,
        datagram: &[u8],
        shared: &mut Shared,
        now: Instant,
    ) {
        let Some(chase) = &mut self.hunt.chase else { return };
        if let Some((transaction, BehaviourAnswer::Mapped { mapped, .. })) = parse_behaviour_answer(datagram)
        {
            let asked = chase.asks.iter_mut();
            let Some(ask) =
                asked.into_iter().find(|ask| (ask.socket, ask.transaction) == (spare, transaction))
            else {
                return;
            };
            ask.seen = Some(mapped);
            if chase.told.is_none() {
                chase.told = chase.expect();
                chase.tell_next = Some(now);
                chase.repeat = now;
                self.hunt.due = Some(now);
            }
            return;
        }
        // filters by address let in several of the member's sockets, and it can keep one only: that with the port it told
        if chase.plan.role == Role::Both && chase.aim != Some(from) {
            return;
        }
        let Some(probe) = self.open(datagram) else { return shared.count("probe_forged") };
        if self.is_fresh(&probe) && self.check_source(from, shared, now).is_ok() {
            self.keep_spare(spare, from, shared, now);
            self.handle_probe(from, &probe, shared, now);
            self.ping(&Active::Direct(from), shared, now);
        }
    }

    /// Neither a replay nor the answer to something else.
    fn is_fresh(&self, probe: &Probe) -> bool {
        let Some(chase) = &self.hunt.chase else { return false };
        let mut window = self.window;
        let is_new = match probe.kind {
            Kind::Ping => window.accept(probe.sequence),
            Kind::Pong => chase.sequences.contains(&probe.sequence) && probe.flags & probe::STALE == 0,
        };
        is_new && (probe.session, probe.your_session) == (self.remote.session, self.session)
    }

    /// This socket reaches the member: it is the pair's from now on.
    fn keep_spare(&mut self, spare: usize, far: SocketAddr, shared: &mut Shared, now: Instant) {
        shared.count("hunt_found");
        self.release(shared);
        let Some(chase) = &mut self.hunt.chase else { return };
        chase.sockets.clear(); // all but this one are closed with it
        shared.outputs.push_back(Output::KeepSpare { member: self.member, spare, far });
        self.hunt.kept = Some(far);
        self.hunt.failures = 0;
        // nothing of before counts: that went from another socket
        self.directs.retain(|route| route.to != far);
        if self.directs.len() >= MAX_CANDIDATES
            && let Some(at) = self.directs.iter().rposition(|route| !route.was_answered())
        {
            self.directs.remove(at);
        }
        self.directs.push(Route::new(far, CandidateKind::Predicted, now));
        self.end_hunt(shared, now);
        self.restart(now);
    }
}
