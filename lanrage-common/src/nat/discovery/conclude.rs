//! What the answers mean.

use super::Primary;
use super::ask::{Ask, Outcome, Question};
use crate::address::{is_carriers, is_global_ipv6};
use crate::nat::{Allocation, Behaviour, Mapping};
use std::net::{IpAddr, SocketAddr};

/// Between two mappings made at once other programs may make some too.
const MAX_STEP: i32 = 20;

/// What the own addresses tell alone.
pub(super) fn of_addresses(local: &[SocketAddr]) -> Behaviour {
    let is_shared = |address: &SocketAddr| matches!(address.ip(), IpAddr::V4(ip) if is_carriers(ip));
    let has_ipv6 = local.iter().any(|address| is_global_ipv6(address.ip()));
    Behaviour {
        is_cgnat: local.iter().any(is_shared).then_some(true),
        has_ipv6: (!has_ipv6).then_some(false),
        ..Behaviour::default()
    }
}

/// OTHER-ADDRESS, if it differs in address and port.
pub(super) fn other_than(server: SocketAddr, other: Option<SocketAddr>) -> Option<SocketAddr> {
    other.filter(|other| other.ip() != server.ip() && other.port() != server.port())
}

/// The first IPv4 server that answered and knows RFC 5780, or else the first that answered.
pub(super) fn primary(asks: &[Ask]) -> Option<Primary> {
    let all = asks.iter().filter(|ask| ask.to.is_ipv4()).filter_map(|ask| match ask.outcome {
        Some(Outcome::Answer { mapped, origin, other }) => {
            let other = other_than(ask.to, other);
            Some(Primary { server: ask.to, mapped, is_tester: origin.is_some(), other })
        }
        _ => None,
    });
    let all: Vec<Primary> = all.collect();
    all.iter().find(|primary| primary.is_tester).or(all.first()).copied()
}

/// Compares what different places have seen of the tunnel's socket. Different mappings to different addresses, seen at
/// one port each, may be of both symmetric kinds: the stricter is told. The same mapping at different ports of one
/// address alone is taken for endpoint-independent, as address-dependent mapping is rare.
pub(super) fn mapping(asks: &[Ask], is_public: bool) -> Option<Mapping> {
    if is_public {
        return Some(Mapping::EndpointIndependent);
    }
    let seen: Vec<(SocketAddr, SocketAddr)> = asks
        .iter()
        .filter(|ask| matches!(ask.question, Question::Basic(_) | Question::Place) && ask.to.is_ipv4())
        .filter_map(|ask| ask.mapped().map(|mapped| (ask.to, mapped)))
        .collect();
    let pairs =
        || seen.iter().enumerate().flat_map(|(at, one)| seen[at + 1..].iter().map(move |two| (*one, *two)));
    let of_one_address = || pairs().filter(|(one, two)| one.0.ip() == two.0.ip() && one.0 != two.0);
    let differs = |(one, two): &((_, SocketAddr), (_, SocketAddr))| one.1 != two.1;
    if of_one_address().any(|pair| differs(&pair)) {
        return Some(Mapping::AddressAndPortDependent);
    }
    if pairs().any(|pair| differs(&pair)) {
        let is_told = of_one_address().next().is_some();
        return Some(if is_told { Mapping::AddressDependent } else { Mapping::AddressAndPortDependent });
    }
    pairs().any(|(one, two)| one.0 != two.0).then_some(Mapping::EndpointIndependent)
}

/// The rule by which mappings that were made one after the other got their ports. One that is used again is not a
/// new one.
pub(super) fn allocation(asks: &[Ask]) -> Option<Allocation> {
    let of = |question| asks.iter().filter(move |ask| ask.question == question).filter_map(Ask::mapped);
    let mut old: Vec<SocketAddr> = of(Question::Fresh).collect();
    let mut ports: Vec<i32> = Vec::new();
    for mapped in of(Question::Port) {
        if !old.contains(&mapped) {
            ports.push(mapped.port().into());
            old.push(mapped);
        }
    }
    let steps: Vec<i32> = ports.windows(2).map(|pair| pair[1] - pair[0]).collect();
    if steps.len() < 2 {
        return None;
    }
    let has_rule = steps.iter().all(|step| step.signum() == steps[0].signum() && step.abs() <= MAX_STEP);
    let smallest = steps.iter().copied().min_by_key(|step| step.abs())?;
    Some(match i16::try_from(smallest) {
        Ok(step) if has_rule => Allocation::Step(step),
        _ => Allocation::Random,
    })
}
