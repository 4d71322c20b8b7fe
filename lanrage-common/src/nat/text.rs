//! Verdicts in words.

use super::{Fix, How, Verdict, Who, Why};
use serde::{Deserialize, Serialize};

/// A verdict for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// What can be expected and why: the rest of a sentence that names the pair.
    pub why: String,
    /// The one change that makes a direct path possible, when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// Puts a verdict into words as the first end reads it; `other` is the second end's name.
pub fn explain(verdict: Verdict, other: &str) -> Explanation {
    match verdict {
        Verdict::Direct(how) => Explanation { why: direct(how).into(), fix: None },
        Verdict::Unknown => Explanation {
            why: format!("too little is known yet of the router here or of {other}'s"),
            fix: None,
        },
        Verdict::Relayed { why, fix } => {
            Explanation { why: obstacle(why, other), fix: Some(advise(fix, other)) }
        }
    }
}

fn direct(how: How) -> &'static str {
    match how {
        How::Lan => "both seem to be in one LAN",
        How::Ipv6 => "both have IPv6",
        How::Mapped => "a router forwards a port",
        How::Punch => "the routers let probes meet",
        How::Predicted => "a router changes ports in steps that can be foretold",
        How::Birthday => "one router randomises ports, which many probes can find",
    }
}

fn obstacle(why: Why, other: &str) -> String {
    match why {
        Why::UdpBlocked(Who::First) => "the network here blocks UDP".into(),
        Why::UdpBlocked(Who::Second) => format!("{other}'s network blocks UDP"),
        Why::UdpBlocked(_) => "both networks block UDP".into(),
        Why::RandomPorts(Who::First) => {
            format!("the router here randomises ports and {other}'s changes them too")
        }
        Why::RandomPorts(Who::Second) => {
            format!("{other}'s router randomises ports and the one here changes them too")
        }
        Why::RandomPorts(_) => "both routers randomise ports".into(),
        Why::NoHairpin => "both are behind one carrier's NAT, which does not lead back inside".into(),
    }
}

/// Puts a change into words.
pub fn advise(fix: Fix, other: &str) -> String {
    let theirs = format!("{other}'s router");
    match fix {
        Fix::AllowUdp(Who::First) => "letting UDP out of the network here would fix it".into(),
        Fix::AllowUdp(Who::Second) => format!("letting UDP out of {other}'s network would fix it"),
        Fix::AllowUdp(_) => "letting UDP out of both networks would fix it".into(),
        Fix::MapPort(who) => {
            let router = match who {
                Who::First => "the router here",
                Who::Second => &theirs,
                Who::Either | Who::Both => "either router",
            };
            format!("switching on UPnP in {router} would fix it")
        }
        Fix::Ipv6(Who::First) => "IPv6 here would fix it".into(),
        Fix::Ipv6(Who::Second) => format!("IPv6 at {other}'s would fix it"),
        Fix::Ipv6(_) => "IPv6 at both ends would fix it".into(),
    }
}
