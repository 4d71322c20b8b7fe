//! The relay in all detail, made when somebody asks: counting every member costs a system call each.

use super::plane::Traffic;
use super::run::Parts;
use super::status::{Counts, count_of, narrow};
use lanrage_common::api::{ReasonCount, RelayDetail, RelayMember, RelayStatus};
use lanrage_common::maps::MemberCounter;
use lanrage_common::relay::{BoundMember, Reason};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Characters of a key or an id that are shown: enough to tell members apart.
const SHORT: usize = 8;
/// Questions that wait; more are refused.
const WAITING: usize = 4;
/// How long the relay may take over an answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Who this relay is.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) region: String,
}

/// Where questions arrive.
pub(super) type Inbox = mpsc::Receiver<oneshot::Sender<RelayDetail>>;

/// Asks a running relay for its detail. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Inquiry(mpsc::Sender<oneshot::Sender<RelayDetail>>);

impl Inquiry {
    /// One for questions, one for the relay that answers.
    pub(super) fn channel() -> (Self, Inbox) {
        let (sender, inbox) = mpsc::channel(WAITING);
        (Self(sender), inbox)
    }

    /// `None` when the relay has ended, or too many ask.
    pub async fn ask(&self) -> Option<RelayDetail> {
        let (reply, answer) = oneshot::channel();
        self.0.try_send(reply).ok()?;
        tokio::time::timeout(PATIENCE, answer).await.ok()?.ok()
    }

    /// An inquiry that this detail answers, for tests of what shows it.
    #[cfg(test)]
    pub(crate) fn answering(detail: RelayDetail) -> Self {
        let (inquiry, mut inbox) = Self::channel();
        tokio::spawn(async move {
            while let Some(reply) = inbox.recv().await {
                drop(reply.send(detail.clone()));
            }
        });
        inquiry
    }
}

/// Everything as it is now.
pub(super) fn describe(parts: &Parts, status: RelayStatus, counts: Counts, started: Instant) -> RelayDetail {
    let Parts { plane, server, datapath, identity, limits, .. } = parts;
    let workers = plane.totals();
    let show = |member: BoundMember| show(&member, datapath.member(member.slot), plane.traffic(member.slot));
    let members: Vec<_> = server.members().map(show).collect();
    let kernel = datapath.reasons().into_iter().map(|(reason, counter)| ReasonCount {
        name: reason.name().to_owned(),
        what: reason.explanation().to_owned(),
        packets: counter.packets,
        bytes: counter.bytes,
    });
    let forwarded = status.userspace_bytes;
    let userspace = Reason::ALL.iter().map(|reason| ReasonCount {
        name: reason.as_str().to_owned(),
        what: reason.explanation().to_owned(),
        packets: count_of(*reason, server, &workers),
        bytes: if *reason == Reason::Forwarded { forwarded } else { 0 },
    });
    let own = counts.with(&workers).explained().map(|(name, what, packets)| ReasonCount {
        name: name.to_owned(),
        what: what.to_owned(),
        packets,
        bytes: 0,
    });
    RelayDetail {
        at_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        status,
        name: identity.name.clone(),
        region: identity.region.clone(),
        max_bindings: narrow(limits.members),
        max_flows: narrow(limits.flows),
        kernel: kernel.collect(),
        userspace: userspace.chain(own).collect(),
        members,
        next_hops_unresolved: narrow(datapath.unresolved()),
    }
}

fn show(member: &BoundMember, kernel: MemberCounter, userspace: Traffic) -> RelayMember {
    let short = |text: String| text.chars().take(SHORT).collect::<String>();
    RelayMember {
        slot: member.slot,
        key: short(member.key.to_string()),
        party: short(member.party.to_string()),
        address: member.leg.remote,
        packets_per_s: member.limits.packets_per_s,
        kbit_per_s: member.limits.kbit_per_s,
        kernel_packets: kernel.packets,
        kernel_bytes: kernel.bytes,
        userspace_packets: userspace.packets,
        userspace_bytes: userspace.bytes,
        dropped: kernel.dropped + userspace.dropped,
    }
}
