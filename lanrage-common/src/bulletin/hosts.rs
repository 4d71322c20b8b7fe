//! Who should host: the member to whom nobody has far to go.

use super::Link;
use crate::api::{HostStatus, LinkStatus, MatrixStatus};
use crate::score::quality;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// A difference that nobody feels, milliseconds.
const EVEN: f64 = 3.0;

/// Figures of a pair, as far as either end knows them.
#[derive(Debug, Clone, Copy)]
struct Pair {
    rtt_ms: f64,
    quality: u8,
}

/// Puts what is known of links into words; members by address, with their names, those that take part now.
pub fn matrix(links: &[(Ipv4Addr, Link)], members: &[(Ipv4Addr, String)]) -> MatrixStatus {
    let pairs = pairs(links);
    let mut hosts: Vec<HostStatus> = Vec::new();
    let mut unknown = 0;
    for (member, name) in members {
        match host(*member, name, members, &pairs) {
            Some(host) => hosts.push(host),
            None => unknown += 1,
        }
    }
    hosts.sort_by(|a, b| a.worst_rtt_ms.total_cmp(&b.worst_rtt_ms).then(a.member.cmp(&b.member)));
    let links = links.iter().map(|(from, link)| LinkStatus {
        from: *from,
        to: link.to,
        path: link.path,
        rtt_ms: link.rtt_ms,
        jitter_ms: link.jitter_ms,
        loss: link.loss,
        quality: quality(link.path, link.rtt_ms, link.jitter_ms, link.loss),
    });
    MatrixStatus { links: links.collect(), advice: advice(&hosts, members.len(), unknown), hosts }
}

fn pairs(links: &[(Ipv4Addr, Link)]) -> BTreeMap<(Ipv4Addr, Ipv4Addr), Pair> {
    let mut pairs: BTreeMap<_, Pair> = BTreeMap::new();
    for (from, link) in links {
        let Some(quality) = quality(link.path, link.rtt_ms, link.jitter_ms, link.loss) else { continue };
        let Some(rtt_ms) = link.rtt_ms else { continue };
        let key = (*from.min(&link.to), *from.max(&link.to));
        // both ends measure the same way there and back: the worse one counts
        let pair = pairs.entry(key).or_insert(Pair { rtt_ms, quality });
        *pair = Pair { rtt_ms: pair.rtt_ms.max(rtt_ms), quality: pair.quality.min(quality) };
    }
    pairs
}

/// None while it is not known how somebody reaches it.
fn host(
    member: Ipv4Addr,
    name: &str,
    members: &[(Ipv4Addr, String)],
    pairs: &BTreeMap<(Ipv4Addr, Ipv4Addr), Pair>,
) -> Option<HostStatus> {
    let mut worst: Option<(Pair, &str)> = None;
    let mut least = u8::MAX;
    for (other, other_name) in members.iter().filter(|(other, _)| *other != member) {
        let pair = *pairs.get(&(*other.min(&member), *other.max(&member)))?;
        least = least.min(pair.quality);
        if worst.is_none_or(|(worst, _)| pair.rtt_ms > worst.rtt_ms) {
            worst = Some((pair, other_name));
        }
    }
    let (pair, with) = worst?;
    Some(HostStatus {
        member,
        name: name.into(),
        worst_rtt_ms: pair.rtt_ms,
        worst_with: with.into(),
        quality: least,
    })
}

fn advice(hosts: &[HostStatus], members: usize, unknown: usize) -> Option<String> {
    let (best, rest) = hosts.split_first()?;
    let rest_of = match unknown {
        0 => String::new(),
        1 => " One member is left out: how the others reach it is not known.".into(),
        count => format!(" {count} members are left out: how the others reach them is not known."),
    };
    if members == 2 {
        return Some(format!(
            "With two it does not matter who hosts: the round trip is {:.0} ms either way.",
            best.worst_rtt_ms
        ));
    }
    let even: Vec<&str> = hosts
        .iter()
        .filter(|host| host.worst_rtt_ms <= best.worst_rtt_ms + EVEN)
        .map(|host| host.name.as_str())
        .collect();
    let Some(next) = rest.first() else {
        return Some(format!(
            "{} can host: nobody is farther than {:.0} ms.{rest_of}",
            best.name, best.worst_rtt_ms
        ));
    };
    if even.len() == hosts.len() {
        return Some(format!(
            "It does not matter who hosts: the longest round trip is {:.0} ms with anyone.{rest_of}",
            best.worst_rtt_ms
        ));
    }
    if even.len() > 1 {
        return Some(format!(
            "{} are equally good hosts: nobody is farther from them than about {:.0} ms.{rest_of}",
            named(&even),
            best.worst_rtt_ms
        ));
    }
    Some(format!(
        "{} is the best host: the longest round trip is {:.0} ms, to {}; with {} it would be {:.0} ms.{rest_of}",
        best.name, best.worst_rtt_ms, best.worst_with, next.name, next.worst_rtt_ms
    ))
}

/// A few by name, of many the first.
fn named(names: &[&str]) -> String {
    match names {
        [first, second, third, rest @ ..] if !rest.is_empty() => {
            format!("{first}, {second}, {third} and {} more", rest.len())
        }
        few => few.join(" and "),
    }
}
