use super::*;
use proptest::prelude::*;

const MAPPINGS: [Mapping; 3] =
    [Mapping::EndpointIndependent, Mapping::AddressDependent, Mapping::AddressAndPortDependent];
const FILTERINGS: [Filtering; 3] =
    [Filtering::EndpointIndependent, Filtering::AddressDependent, Filtering::AddressAndPortDependent];
const ALLOCATIONS: [Allocation; 3] = [Allocation::Preserving, Allocation::Step(2), Allocation::Random];

/// Every behaviour as far as the verdict looks, without gaps.
fn all() -> Vec<Behaviour> {
    let mut all = Vec::new();
    for mapping in MAPPINGS {
        for filtering in FILTERINGS {
            for allocation in ALLOCATIONS {
                for bits in 0..32 {
                    let bit = |at: u32| bits >> at & 1 == 1;
                    let by = if bit(2) { PortMapping::Upnp } else { PortMapping::None };
                    all.push(Behaviour {
                        udp_blocked: Some(bit(0)),
                        has_ipv6: Some(bit(1)),
                        port_mapping: Some(by),
                        is_cgnat: Some(bit(3)),
                        hairpin: Some(bit(4)),
                        ..Behaviour::nat(mapping, filtering, allocation)
                    });
                }
            }
        }
    }
    all
}

/// The same pair, behind different addresses and behind one.
fn both_ways(first: &Behaviour, second: &Behaviour) -> [(Behaviour, Behaviour); 2] {
    let at = |end: &Behaviour, last| Behaviour {
        public_address: Some(Ipv4Addr::new(203, 0, 113, last)),
        ..end.clone()
    };
    [(at(first, 1), at(second, 2)), (at(first, 1), at(second, 1))]
}

/// Greater is better.
fn rank(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Direct(How::Birthday) => 2,
        Verdict::Direct(How::Predicted) => 3,
        Verdict::Direct(_) => 4,
        Verdict::Unknown => 1,
        Verdict::Relayed { .. } => 0,
    }
}

/// Each by one step, in one fact.
fn friendlier(one: &Behaviour) -> Vec<Behaviour> {
    let step = |change: &dyn Fn(&mut Behaviour)| {
        let mut better = one.clone();
        change(&mut better);
        better
    };
    let mut all = vec![
        step(&|it| it.udp_blocked = Some(false)),
        step(&|it| it.has_ipv6 = Some(true)),
        step(&|it| it.port_mapping = Some(PortMapping::Pcp)),
        step(&|it| it.is_cgnat = Some(false)),
        step(&|it| it.hairpin = Some(true)),
    ];
    all.extend(
        MAPPINGS
            .iter()
            .filter(|mapping| Some(**mapping) < one.mapping)
            .map(|mapping| step(&|it| it.mapping = Some(*mapping))),
    );
    all.extend(
        FILTERINGS
            .iter()
            .filter(|filtering| Some(**filtering) < one.filtering)
            .map(|filtering| step(&|it| it.filtering = Some(*filtering))),
    );
    if one.allocation == Some(Allocation::Random) {
        all.push(step(&|it| it.allocation = Some(Allocation::Step(1))));
    }
    all
}

#[test]
fn both_ends_say_the_same_of_every_pair() {
    let all = all();
    for first in &all {
        for second in &all {
            for (first, second) in both_ways(first, second) {
                let said = verdict(&first, &second);
                assert_eq!(said.swapped(), verdict(&second, &first), "{first:?} {second:?}");
                assert_ne!(said, Verdict::Unknown, "{first:?} {second:?}");
            }
        }
    }
}

#[test]
fn a_friendlier_nat_never_gets_a_worse_verdict() {
    let all = all();
    for first in &all {
        let better = friendlier(first);
        for second in &all {
            for better in &better {
                for ((worse, second), (better, _)) in
                    both_ways(first, second).into_iter().zip(both_ways(better, second))
                {
                    let (before, after) = (verdict(&worse, &second), verdict(&better, &second));
                    assert!(
                        rank(after) >= rank(before),
                        "{before:?} {after:?}: {worse:?} {better:?} {second:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_fix_of_every_relayed_pair_makes_it_direct() {
    let apply = |who: Who, is_first: bool, end: &Behaviour, change: fn(&mut Behaviour)| {
        let mut end = end.clone();
        if matches!((who, is_first), (Who::Both, _) | (Who::First | Who::Either, true) | (Who::Second, false))
        {
            change(&mut end);
        }
        end
    };
    let all = all();
    for first in &all {
        for second in &all {
            for (first, second) in both_ways(first, second) {
                let Verdict::Relayed { fix, .. } = verdict(&first, &second) else { continue };
                let (who, change): (_, fn(&mut Behaviour)) = match fix {
                    Fix::AllowUdp(who) => (who, |it| it.udp_blocked = Some(false)),
                    Fix::MapPort(who) => (who, |it| it.port_mapping = Some(PortMapping::Upnp)),
                    Fix::Ipv6(who) => (who, |it| it.has_ipv6 = Some(true)),
                };
                let fixed = (apply(who, true, &first, change), apply(who, false, &second, change));
                let after = verdict(&fixed.0, &fixed.1);
                // a second obstacle may stand behind a blocked UDP; it is another one
                let is_next = matches!(fix, Fix::AllowUdp(_))
                    && matches!(after, Verdict::Relayed { why, .. } if !matches!(why, Why::UdpBlocked(_)));
                assert!(rank(after) > 1 || is_next, "{fix:?} {after:?}: {first:?} {second:?}");
                if let Fix::MapPort(who) = fix {
                    let helps = |end: &Behaviour| end.is_cgnat == Some(false);
                    assert!(matches!(who, Who::Second) || helps(&first), "{first:?}");
                    assert!(matches!(who, Who::First) || helps(&second), "{second:?}");
                }
            }
        }
    }
}

fn eim(filtering: Filtering) -> Behaviour {
    Behaviour::nat(Mapping::EndpointIndependent, filtering, Allocation::Preserving)
}

fn symmetric(allocation: Allocation) -> Behaviour {
    Behaviour::nat(Mapping::AddressAndPortDependent, Filtering::AddressAndPortDependent, allocation)
}

#[test]
fn every_row_of_the_table() {
    use Filtering::{AddressAndPortDependent as Apdf, AddressDependent as Adf, EndpointIndependent as Eif};
    let (random, steps) = (symmetric(Allocation::Random), symmetric(Allocation::Step(1)));
    let cgnat = |end: &Behaviour| Behaviour { is_cgnat: Some(true), ..end.clone() };
    let ipv6 = |end: &Behaviour| Behaviour { has_ipv6: Some(true), ..end.clone() };
    let here = |end: Behaviour| Behaviour { public_address: Some([203, 0, 113, 9].into()), ..end };
    let home = |end: &Behaviour| here(Behaviour { is_cgnat: Some(false), ..end.clone() });
    let carried = here(Behaviour { hairpin: Some(false), ..cgnat(&eim(Apdf)) });
    let mapped = Behaviour { port_mapping: Some(PortMapping::NatPmp), ..random.clone() };
    let blocked = Behaviour { udp_blocked: Some(true), ..eim(Eif) };
    let relayed = |why, fix| Verdict::Relayed { why, fix };
    let rows = [
        (eim(Apdf), blocked.clone(), relayed(Why::UdpBlocked(Who::Second), Fix::AllowUdp(Who::Second))),
        (home(&random), home(&random), Verdict::Direct(How::Lan)),
        (ipv6(&random), ipv6(&random), Verdict::Direct(How::Ipv6)),
        (random.clone(), mapped, Verdict::Direct(How::Mapped)),
        (carried.clone(), carried.clone(), relayed(Why::NoHairpin, Fix::Ipv6(Who::Both))),
        (eim(Apdf), eim(Apdf), Verdict::Direct(How::Punch)),
        (eim(Eif), random.clone(), Verdict::Direct(How::Punch)),
        (eim(Adf), random.clone(), Verdict::Direct(How::Punch)),
        (eim(Apdf), steps.clone(), Verdict::Direct(How::Predicted)),
        (eim(Apdf), random.clone(), Verdict::Direct(How::Birthday)),
        (steps.clone(), steps.clone(), Verdict::Direct(How::Predicted)),
    ];
    for (first, second, expected) in rows {
        assert_eq!(verdict(&first, &second), expected, "{first:?} {second:?}");
    }
    let known = |end: &Behaviour| Behaviour { is_cgnat: Some(false), ..end.clone() };
    let either = Fix::MapPort(Who::Either);
    let rows = [
        (known(&random), known(&random), relayed(Why::RandomPorts(Who::Both), either)),
        (known(&random), known(&steps), relayed(Why::RandomPorts(Who::First), either)),
        (cgnat(&random), known(&random), relayed(Why::RandomPorts(Who::Both), Fix::MapPort(Who::Second))),
        (cgnat(&random), cgnat(&ipv6(&random)), relayed(Why::RandomPorts(Who::Both), Fix::Ipv6(Who::First))),
    ];
    for (first, second, expected) in rows {
        assert_eq!(verdict(&first, &second), expected, "{first:?} {second:?}");
    }
}

#[test]
fn gaps_matter_only_where_they_decide() {
    let unknown = Behaviour::default();
    let random = symmetric(Allocation::Random);
    assert_eq!(verdict(&unknown, &unknown), Verdict::Unknown);
    assert_eq!(verdict(&unknown, &random), Verdict::Unknown);
    let blocked = Behaviour { udp_blocked: Some(true), ..unknown.clone() };
    assert!(matches!(verdict(&blocked, &unknown), Verdict::Relayed { why: Why::UdpBlocked(_), .. }));
    let mapping_alone = Behaviour { mapping: Some(Mapping::EndpointIndependent), ..unknown.clone() };
    assert_eq!(verdict(&mapping_alone, &mapping_alone), Verdict::Direct(How::Punch));
    assert_eq!(verdict(&mapping_alone, &random), Verdict::Direct(How::Birthday));
    assert!(matches!(verdict(&random, &random), Verdict::Relayed { why: Why::RandomPorts(Who::Both), .. }));
}

#[test]
fn a_relayed_pair_is_explained_with_its_fix() {
    let home = Behaviour { is_cgnat: Some(false), ..symmetric(Allocation::Random) };
    let said = explain(verdict(&home, &home), "Ana");
    assert_eq!(said.why, "both routers randomise ports");
    assert_eq!(said.fix.unwrap(), "switching on UPnP in either router would fix it");
    for first in all() {
        for second in all().iter().step_by(7) {
            let verdict = verdict(&first, second);
            let said = explain(verdict, "Ana");
            assert_eq!(said.fix.is_some(), verdict.how().is_none(), "{verdict:?}");
        }
    }
}

prop_compose! {
    fn behaviour()(
        answers in any::<[Option<bool>; 5]>(),
        mapping in proptest::option::of(proptest::sample::select(&MAPPINGS[..])),
        filtering in proptest::option::of(proptest::sample::select(&FILTERINGS[..])),
        allocation in proptest::option::of(prop_oneof![
            Just(Allocation::Preserving), Just(Allocation::Random), any::<i16>().prop_map(Allocation::Step)
        ]),
        port_mapping in proptest::option::of(prop_oneof![Just(PortMapping::None), Just(PortMapping::Pcp)]),
        lifetime_s in proptest::option::of(1u16..),
        address in proptest::option::of(1u32..),
    ) -> Behaviour {
        let [udp_blocked, is_public, hairpin, is_cgnat, has_ipv6] = answers;
        let public_address = address.map(Ipv4Addr::from);
        Behaviour {
            udp_blocked, is_public, public_address, mapping, filtering, allocation, hairpin, is_cgnat, has_ipv6,
            port_mapping, lifetime_s,
        }
    }
}

proptest! {
    #[test]
    fn behaviours_survive_both_encodings(behaviour in behaviour()) {
        prop_assert_eq!(&Behaviour::from_bytes(&behaviour.to_bytes()), &behaviour);
        let json = serde_json::to_string(&behaviour).unwrap();
        prop_assert_eq!(serde_json::from_str::<Behaviour>(&json).unwrap(), behaviour);
    }

    #[test]
    fn any_bytes_are_some_behaviour(bytes in any::<[u8; ENCODED_LEN]>(), other in any::<[u8; ENCODED_LEN]>()) {
        let (first, second) = (Behaviour::from_bytes(&bytes), Behaviour::from_bytes(&other));
        prop_assert_eq!(verdict(&first, &second).swapped(), verdict(&second, &first));
    }

    /// Filling a gap never turns direct into relayed, nor the reverse.
    #[test]
    fn a_verdict_with_gaps_holds_when_they_are_filled(first in behaviour(), second in behaviour(), full in behaviour()) {
        let filled = Behaviour {
            udp_blocked: first.udp_blocked.or(full.udp_blocked.filter(|_| first.mapping.is_none())),
            mapping: first.mapping.or(full.mapping),
            filtering: first.filtering.or(full.filtering),
            allocation: first.allocation.or(full.allocation),
            hairpin: first.hairpin.or(full.hairpin),
            ..first.clone()
        };
        let (before, after) = (verdict(&first, &second), verdict(&filled, &second));
        if before != Verdict::Unknown {
            prop_assert_eq!(before.how().is_some(), after.how().is_some(), "{:?} {:?}", before, after);
        }
    }
}
