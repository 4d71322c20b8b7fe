//! What the product says is possible between two of the lab's routers.

use crate::lab::nat::NatKind;
use crate::lab::nat::behaviour::{Allocation as Own, Behaviour as OwnBehaviour, Scope};
use crate::lab::site::Site;
use crate::lab::topology::wan;
use lanrage_common::nat::{self, Allocation, Behaviour, Filtering, How, Mapping, Verdict};

/// The product's verdict, told everything about both sites.
pub fn verdict(a: Site, b: Site) -> Verdict {
    let first = site_behaviour(a);
    if b.home.is_some() {
        // both behind one router: one public address
        let public_address = Some(wan(1, 2));
        let first = Behaviour { public_address, ..first };
        return nat::verdict(&first, &first.clone());
    }
    nat::verdict(&first, &site_behaviour(b))
}

/// Two NATs in a row are as bad as the worse of them in each respect.
fn site_behaviour(site: Site) -> Behaviour {
    let home = behaviour(site.nat);
    let behind = match site.carrier.map(behaviour) {
        None => Behaviour { is_cgnat: Some(false), ..home },
        Some(carrier) => Behaviour {
            udp_blocked: home.udp_blocked.max(carrier.udp_blocked),
            is_public: Some(false),
            mapping: home.mapping.max(carrier.mapping),
            filtering: home.filtering.max(carrier.filtering),
            // ports outside are the carrier's, in the order in which the home's mappings are made
            allocation: match home.mapping {
                Some(Mapping::EndpointIndependent) => carrier.allocation,
                _ if carrier.allocation == Some(Allocation::Preserving) => home.allocation,
                _ => carrier.allocation,
            },
            hairpin: carrier.hairpin,
            is_cgnat: Some(true),
            ..home
        },
    };
    Behaviour { has_ipv6: Some(site.has_ipv6()), ..behind }
}

/// One word for a verdict: how a direct path comes about, or `relay`, or `unknown`.
pub fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Direct(How::Lan) => "lan",
        Verdict::Direct(How::Ipv6) => "ipv6",
        Verdict::Direct(How::Mapped) => "mapped",
        Verdict::Direct(How::Punch) => "punch",
        Verdict::Direct(How::Predicted) => "predicted",
        Verdict::Direct(How::Birthday) => "birthday",
        Verdict::Relayed { .. } => "relay",
        Verdict::Unknown => "unknown",
    }
}

/// A router as a perfect test would find it.
fn behaviour(kind: NatKind) -> Behaviour {
    let strict = Filtering::AddressAndPortDependent;
    match kind {
        NatKind::None => Behaviour {
            is_public: Some(true),
            ..Behaviour::nat(
                Mapping::EndpointIndependent,
                Filtering::EndpointIndependent,
                Allocation::Preserving,
            )
        },
        NatKind::Eim => Behaviour::nat(Mapping::EndpointIndependent, strict, Allocation::Preserving),
        NatKind::Symmetric => Behaviour::nat(Mapping::AddressAndPortDependent, strict, Allocation::Random),
        NatKind::UdpBlocked => Behaviour { udp_blocked: Some(true), ..Behaviour::default() },
        NatKind::Own(own) => own_behaviour(own),
    }
}

fn own_behaviour(own: OwnBehaviour) -> Behaviour {
    let mapping = match own.mapping {
        Scope::Independent => Mapping::EndpointIndependent,
        Scope::Address => Mapping::AddressDependent,
        Scope::AddressAndPort => Mapping::AddressAndPortDependent,
    };
    let filtering = match own.filtering {
        Scope::Independent => Filtering::EndpointIndependent,
        Scope::Address => Filtering::AddressDependent,
        Scope::AddressAndPort => Filtering::AddressAndPortDependent,
    };
    let allocation = match own.allocation {
        // only the first mapping of a port can keep it
        Own::Preserving if own.mapping != Scope::Independent => Allocation::Step(1),
        Own::Preserving => Allocation::Preserving,
        Own::Sequential(step) => i16::try_from(step).map_or(Allocation::Random, Allocation::Step),
        Own::Random => Allocation::Random,
    };
    Behaviour {
        udp_blocked: Some(own.blocks_udp),
        hairpin: Some(own.hairpin),
        lifetime_s: Some(own.timeout_s),
        ..Behaviour::nat(mapping, filtering, allocation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_those_of_the_table() {
        let rows = [
            ("none", "apdm+apdf+random", "punch"),
            ("eim+apdf+random", "eim", "punch"),
            ("eim+adf+random", "symmetric", "punch"),
            ("eim", "apdm+apdf+sequential", "predicted"),
            ("eim", "symmetric", "birthday"),
            ("apdm+apdf+sequential", "adm+adf+preserving", "predicted"),
            ("symmetric", "apdm+apdf+sequential", "relay"),
            ("eim", "udp-blocked", "relay"),
            ("eim+eif+no-udp", "eim", "relay"),
            ("eim/cgn:symmetric", "symmetric", "relay"),
            ("eim/cgn:eim+eif+random", "symmetric", "birthday"),
            ("symmetric/dual", "symmetric/dual", "ipv6"),
        ];
        for (a, b, expected) in rows {
            let (a, b) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!([word(verdict(a, b)), word(verdict(b, a))], [expected; 2], "{a} {b}");
        }
        assert_eq!(word(verdict("symmetric".parse().unwrap(), "with:1".parse().unwrap())), "lan");
    }
}
