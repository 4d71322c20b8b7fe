//! One pair: a party of two, and a game that goes on while the path is looked for.

use super::report::Row;
use super::{Pair, expect};
use crate::lab::flow::{Flow, Passage};
use crate::lab::live;
use crate::lab::party::path_word;
use crate::lab::role::Role;
use crate::lab::running::Lab;
use crate::lab::traffic::Station;
use anyhow::{Context, Result, ensure};
use lanrage_common::api::PathKind;
use lanrage_common::nat::{How, Verdict};
use std::time::{Duration, Instant};

/// A packet each way every so often.
const BEAT: Duration = Duration::from_millis(20);
const PORT: u16 = 37017;
/// How often the path is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How long the game goes on after the path became direct.
const AFTER: Duration = Duration::from_secs(3);

/// How long a direct path is waited for: twice what it should take, and on a busy machine.
fn patience(verdict: Verdict) -> Duration {
    Duration::from_secs(match verdict {
        Verdict::Direct(How::Birthday) => 35,
        Verdict::Direct(How::Predicted) => 20,
        Verdict::Direct(_) => 20,
        // long enough to see one that should not be
        Verdict::Unknown | Verdict::Relayed { .. } => 12,
    })
}

/// Peers `numbers` meet, play, and leave.
pub fn play(lab: &Lab, pair: Pair, numbers: [usize; 2]) -> Result<Row> {
    let roles = [Role::Peer(u8::try_from(numbers[0])?), Role::Peer(u8::try_from(numbers[1])?)];
    let verdict = expect::verdict(pair.a, pair.b);
    lab.lanrage_output(roles[0], &["party", "create", &format!("Pair{}", numbers[1] / 2)])?;
    let link = lab.invite(roles[0], &[])?;
    let joined = Instant::now();
    lab.lanrage_output(roles[1], &["party", "join", &link])?;
    let [a, b] = stations(lab, roles)?;
    let flows = [Flow::start(&a, &b, PORT, BEAT)?, Flow::start(&b, &a, PORT, BEAT)?];
    let direct = wait_for_direct(lab, roles, joined, joined + patience(verdict));
    if direct.is_some() {
        std::thread::sleep(AFTER);
    }
    let ends = paths(lab, roles)?;
    let path = ends.into_iter().find(|path| *path != PathKind::Direct).unwrap_or(PathKind::Direct);
    let passage = flows.into_iter().map(Flow::stop).fold(Passage::default(), |sum, flow| sum + flow);
    ensure!(passage.early < passage.sent, "no packet crossed the tunnel:\n{}", lab.explain_paths());
    Ok(Row {
        a: pair.a,
        b: pair.b,
        verdict,
        path: path_word(if direct.is_some() { PathKind::Direct } else { path }),
        direct_ms: direct.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        passage,
    })
}

fn stations(lab: &Lab, roles: [Role; 2]) -> Result<[Station; 2]> {
    let station = |role| {
        let party = lab.daemon_status(role)?.party.with_context(|| format!("{role} is in no party"))?;
        Ok::<_, anyhow::Error>(Station { namespace: lab.namespace(role), address: party.address })
    };
    Ok([station(roles[0])?, station(roles[1])?])
}

/// When both ends first say that their path is direct, counted from joining.
fn wait_for_direct(lab: &Lab, roles: [Role; 2], joined: Instant, deadline: Instant) -> Option<Duration> {
    while Instant::now() < deadline {
        if paths(lab, roles).is_ok_and(|paths| paths == [PathKind::Direct; 2]) {
            return Some(joined.elapsed());
        }
        std::thread::sleep(LOOK);
    }
    None
}

/// How each reaches the other.
fn paths(lab: &Lab, roles: [Role; 2]) -> Result<[PathKind; 2]> {
    let path = |role| {
        let party = live::status(&lab.socket(role))?.party.context("the party is gone")?;
        let other = party.members.into_iter().find(|member| !member.is_self);
        Ok::<_, anyhow::Error>(other.map_or(PathKind::None, |other| other.path))
    };
    Ok([path(roles[0])?, path(roles[1])?])
}
