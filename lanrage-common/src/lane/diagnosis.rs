//! Why a conversation came no further, in words, and what helps.

use super::LaneReason;
use super::maps::TraceCount;
use super::trace::TraceMember;
use crate::api::{LaneListener, LaneRung, Problem};
use std::net::IpAddr;

/// What was said to everybody.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case<'a> {
    pub destination: IpAddr,
    pub port: u16,
    pub total: &'a TraceCount,
    pub reason: Option<LaneReason>,
}

fn problem(code: &str, message: String, fix: impl Into<String>) -> Option<Problem> {
    Some(Problem { code: code.into(), message, fix: fix.into() })
}

/// Nothing of it was copied.
pub(super) fn not_copied(case: &Case<'_>) -> Option<Problem> {
    let Some(reason) = case.reason else {
        return problem("not_copied_yet", "it was seen, and not copied yet".into(), "look again in a second");
    };
    let (message, fix) = match reason {
        LaneReason::NoMembers => ("nobody else is in the party".into(), "invite somebody: `lanrage invite`"),
        LaneReason::NotJoined => (
            format!("nobody else has joined {}", case.destination),
            "start the game at a friend's, or open its list of local games there",
        ),
        LaneReason::RateLimited => (
            format!("more than 200 packets a second to port {}: dropped", case.port),
            "nothing, unless the game needs that many: then report it",
        ),
        LaneReason::Looped => (
            format!(
                "the same packet to port {} goes round: a program repeats broadcasts between this network and another",
                case.port
            ),
            "end the broadcast relay or bridge on one of the members' machines: the party needs none",
        ),
        LaneReason::Segmented => (
            "the game hands over several datagrams in one (UDP_SEGMENT), which the kernel cannot copy".into(),
            "set `peer.lane = \"userspace\"` and restart the daemon",
        ),
        LaneReason::Dhcp | LaneReason::Netbios | LaneReason::Llmnr => (
            format!("dropped: {} is never carried, because it configures the network at home", reason.name()),
            "nothing: games do not need it",
        ),
        LaneReason::Mdns | LaneReason::Ssdp | LaneReason::Wsd => (
            format!("dropped: {} is of the network at home, not of the party", reason.name()),
            "nothing, unless a game looks for others this way: then list it in `peer.lane_services` on both machines",
        ),
        LaneReason::Oversize => (
            "dropped: longer than an IPv4 packet can be once wrapped".into(),
            "make the game send less at once",
        ),
        other => (format!("dropped: {}", other.name()), "docs/protocols.md says what that means"),
    };
    problem(reason.name(), message, fix)
}

/// It is at a member, and came no further.
pub(super) fn there(
    case: &Case<'_>,
    member: &TraceMember,
    joined: Option<bool>,
    rung: LaneRung,
    (delivered, listener): (Option<u64>, LaneListener),
) -> Option<Problem> {
    let (name, port) = (&member.name, case.port);
    match rung {
        LaneRung::Answered => None,
        LaneRung::Seen | LaneRung::Copied if !member.is_reachable => problem(
            "unreachable",
            format!("there is no path to {name}"),
            "`lanrage peers` says why; it must be online, with its tunnel up",
        ),
        LaneRung::Seen | LaneRung::Copied if joined == Some(false) => not_joined(case, member),
        LaneRung::Seen | LaneRung::Copied => problem(
            "not_delivered",
            format!("{name}'s machine has not said that anything arrived"),
            format!(
                "wait a second; if it stays so, try `lanrage ping {name}`, and update LANrage there: older versions do not say"
            ),
        ),
        LaneRung::Delivered => {
            let got = format!("{name}'s machine got it {}", times(delivered.unwrap_or(0)));
            let not_joined = || not_joined(case, member).filter(|_| joined == Some(false));
            at_program(case, &got, "there", listener).or_else(not_joined).or_else(|| problem(
                "not_answered",
                format!("{got}, and has sent nothing back to the port that asked"),
                format!("nothing, if the game only announces itself, or answers at another port; else look whether a firewall there blocks UDP {port} on the party's interface, or whether the game there is still loading"),
            ))
        }
    }
}

fn not_joined(case: &Case<'_>, member: &TraceMember) -> Option<Problem> {
    let (name, to) = (&member.name, case.destination);
    problem(
        "not_joined",
        format!(
            "not joined by {name}: no program there listens to {to}, so only searches are sent there, not every packet"
        ),
        format!("start the game at {name}'s, or open its list of local games there; if it runs, restart it"),
    )
}

/// It came from another device, and is here.
pub(super) fn here(case: &Case<'_>, listener: LaneListener) -> Option<Problem> {
    at_program(case, &format!("it came here {}", times(case.total.packets)), "here", listener)
}

fn at_program(case: &Case<'_>, got: &str, place: &str, listener: LaneListener) -> Option<Problem> {
    let (port, to) = (case.port, case.destination);
    match listener {
        LaneListener::Unknown | LaneListener::Listening => None,
        LaneListener::Nobody => problem(
            "nobody_listens",
            format!("{got}, but no program {place} listens on UDP {port}"),
            format!(
                "start the game's server or open its list of local games {place}; if it runs, it uses another port: choose {port} in its settings"
            ),
        ),
        LaneListener::Elsewhere => problem(
            "bound_elsewhere",
            format!(
                "{got}, but the program {place} that listens on UDP {port} is bound to one address, where packets to everybody do not come"
            ),
            format!("let the game {place} use all addresses instead of one network card"),
        ),
        LaneListener::NotJoined => problem(
            "not_joined",
            format!("{got}, but no program {place} has joined {to}"),
            format!("start the game {place}, or open its list of local games; if it runs, restart it"),
        ),
    }
}

fn times(count: u64) -> String {
    match count {
        1 => "once".into(),
        _ => format!("{count} times"),
    }
}
