//! Routers in terms of RFC 4787: mapping, filtering, allocation of ports, hairpinning, lifetime.

use crate::nat::{self, Behaviour};
use rand::Rng as _;
use rand::rngs::StdRng;
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// A mapping that was not used outbound for this long is forgotten (home routers: about 30 s).
pub const LIFE: Duration = Duration::from_secs(30);

/// On what of the far end a mapping or a filter depends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dependence {
    /// Nothing: endpoint-independent.
    None,
    /// Its address.
    Address,
    /// Its address and port.
    AddressPort,
}

impl Dependence {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::None, Self::Address, Self::AddressPort];

    /// What two far ends must share to be the same for this kind.
    fn part(self, far: SocketAddr) -> Option<SocketAddr> {
        match self {
            Self::None => None,
            Self::Address => Some(SocketAddr::new(far.ip(), 0)),
            Self::AddressPort => Some(far),
        }
    }
}

/// Which outside port a new mapping gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocation {
    /// The inside port, if it is free.
    Preserving,
    /// So many more than the last one; up to `others` mappings of other machines come in between.
    Sequential {
        /// Difference.
        step: u16,
        /// Most foreign mappings between two of ours.
        others: u16,
    },
    /// Any.
    Random,
}

/// What a router does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// What a mapping depends on.
    pub mapping: Dependence,
    /// What may come in.
    pub filtering: Dependence,
    /// Ports of new mappings.
    pub allocation: Allocation,
    /// Whether machines inside reach each other by the outside address.
    pub hairpin: bool,
    /// When an unused mapping is forgotten.
    pub life: Duration,
}

/// What is between a host and the internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nat {
    /// Nothing: a public address.
    None,
    /// A router.
    Router(Rules),
}

impl Nat {
    /// Steady mapping, strict filtering, random ports: what most homes have, at its worst.
    pub const EIM: Self = Self::cone(Dependence::AddressPort);
    /// Another random port for every far end, and strict filtering.
    pub const SYMMETRIC: Self = Self::symmetric(Allocation::Random);

    /// Endpoint-independent mapping with this filtering.
    pub const fn cone(filtering: Dependence) -> Self {
        Self::Router(Rules {
            mapping: Dependence::None,
            filtering,
            allocation: Allocation::Random,
            hairpin: false,
            life: LIFE,
        })
    }

    /// Address- and port-dependent mapping and filtering.
    pub const fn symmetric(allocation: Allocation) -> Self {
        Self::Router(Rules {
            mapping: Dependence::AddressPort,
            filtering: Dependence::AddressPort,
            allocation,
            hairpin: false,
            life: LIFE,
        })
    }
}

impl Nat {
    /// What a device behind it would find out.
    pub fn behaviour(self) -> Behaviour {
        let Self::Router(rules) = self else {
            let (mapping, filtering) =
                (nat::Mapping::EndpointIndependent, nat::Filtering::EndpointIndependent);
            let open = Behaviour::nat(mapping, filtering, nat::Allocation::Preserving);
            return Behaviour { is_public: Some(true), is_cgnat: Some(false), ..open };
        };
        let mapping = match rules.mapping {
            Dependence::None => nat::Mapping::EndpointIndependent,
            Dependence::Address => nat::Mapping::AddressDependent,
            Dependence::AddressPort => nat::Mapping::AddressAndPortDependent,
        };
        let filtering = match rules.filtering {
            Dependence::None => nat::Filtering::EndpointIndependent,
            Dependence::Address => nat::Filtering::AddressDependent,
            Dependence::AddressPort => nat::Filtering::AddressAndPortDependent,
        };
        let allocation = match rules.allocation {
            Allocation::Preserving => nat::Allocation::Preserving,
            Allocation::Sequential { step, .. } => nat::Allocation::Step(step as i16),
            Allocation::Random => nat::Allocation::Random,
        };
        let is_cgnat = Some(false);
        Behaviour { is_cgnat, hairpin: Some(rules.hairpin), ..Behaviour::nat(mapping, filtering, allocation) }
    }
}

#[derive(Debug)]
struct Mapping {
    inside: SocketAddr,
    used: Duration,
    /// Far ends that were sent to, and when.
    far: HashMap<SocketAddr, Duration>,
}

/// A router at work.
#[derive(Debug)]
pub struct Router {
    /// What it does.
    pub nat: Nat,
    /// Its outside address.
    pub outside: Ipv4Addr,
    last_port: u16,
    /// Inside end and what counts of the far end -> outside port.
    ports: HashMap<(SocketAddr, Option<SocketAddr>), u16>,
    mappings: HashMap<u16, Mapping>,
}

impl Router {
    /// A router without mappings.
    pub fn new(nat: Nat, outside: Ipv4Addr, rng: &mut StdRng) -> Self {
        let last_port = rng.gen_range(20_000..40_000);
        Self { nat, outside, last_port, ports: HashMap::new(), mappings: HashMap::new() }
    }

    /// Forgets all mappings.
    pub fn reboot(&mut self, nat: Nat) {
        self.nat = nat;
        self.ports.clear();
        self.mappings.clear();
    }

    /// The outside source of a datagram; opens the way back.
    pub fn translate(
        &mut self,
        inside: SocketAddr,
        to: SocketAddr,
        at: Duration,
        rng: &mut StdRng,
    ) -> SocketAddr {
        let Nat::Router(rules) = self.nat else { return inside };
        let key = (inside, rules.mapping.part(to));
        let live = |mapping: &Mapping| at.saturating_sub(mapping.used) <= rules.life;
        let known = self.ports.get(&key).copied().filter(|port| self.mappings.get(port).is_some_and(live));
        let port = known.unwrap_or_else(|| {
            let port = self.allocate(rules, inside, at, rng);
            self.mappings.insert(port, Mapping { inside, used: at, far: HashMap::new() });
            self.ports.insert(key, port);
            port
        });
        if let Some(mapping) = self.mappings.get_mut(&port) {
            mapping.used = at;
            mapping.far.insert(to, at);
        }
        (self.outside, port).into()
    }

    fn allocate(&mut self, rules: Rules, inside: SocketAddr, at: Duration, rng: &mut StdRng) -> u16 {
        let is_taken = |port: u16| {
            self.mappings.get(&port).is_some_and(|mapping| at.saturating_sub(mapping.used) <= rules.life)
        };
        let next = |port: u16, step: u16| if port > 65_000 - step { 1024 } else { port + step };
        let (mut port, step) = match rules.allocation {
            Allocation::Preserving => (inside.port(), 1),
            Allocation::Random => (rng.gen_range(1024..=65_535), 7),
            Allocation::Sequential { step, others } => {
                let others = rng.gen_range(0..=others);
                (0..=others).fold((self.last_port, step), |(port, step), _| (next(port, step), step))
            }
        };
        while is_taken(port) {
            port = next(port, step);
        }
        if matches!(rules.allocation, Allocation::Sequential { .. }) {
            self.last_port = port;
        }
        port
    }

    /// Who gets a datagram that arrives outside, if anybody.
    pub fn admit(&self, from: SocketAddr, port: u16, at: Duration) -> Option<SocketAddr> {
        let Nat::Router(rules) = self.nat else { return None };
        let mapping =
            self.mappings.get(&port).filter(|mapping| at.saturating_sub(mapping.used) <= rules.life)?;
        let wanted = rules.filtering.part(from);
        let is_open = |(far, sent): (&SocketAddr, &Duration)| {
            rules.filtering.part(*far) == wanted && at.saturating_sub(*sent) <= rules.life
        };
        (wanted.is_none() || mapping.far.iter().any(is_open)).then_some(mapping.inside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    const INSIDE: &str = "192.168.1.2:4001";

    fn far(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn router(nat: Nat) -> (Router, StdRng) {
        let mut rng = StdRng::seed_from_u64(1);
        (Router::new(nat, Ipv4Addr::new(203, 0, 113, 1), &mut rng), rng)
    }

    #[test]
    fn mappings_depend_on_what_they_should() {
        for mapping in Dependence::ALL {
            let Nat::Router(rules) = Nat::EIM else { unreachable!() };
            let (mut router, mut rng) = router(Nat::Router(Rules { mapping, ..rules }));
            let mut port = |to| router.translate(far(INSIDE), far(to), Duration::ZERO, &mut rng).port();
            let (a, b, c) = (port("192.0.2.1:1"), port("192.0.2.1:2"), port("192.0.2.2:1"));
            assert_eq!((a == b, a == c), (mapping != Dependence::AddressPort, mapping == Dependence::None));
            assert_eq!(port("192.0.2.1:1"), a);
        }
    }

    #[test]
    fn filters_let_in_what_they_should_and_mappings_end() {
        for filtering in Dependence::ALL {
            let (mut router, mut rng) = router(Nat::cone(filtering));
            let port = router.translate(far(INSIDE), far("192.0.2.1:1"), Duration::ZERO, &mut rng).port();
            let gets = |from, at| router.admit(far(from), port, Duration::from_secs(at)) == Some(far(INSIDE));
            assert!(gets("192.0.2.1:1", 30) && !gets("192.0.2.1:1", 31));
            assert_eq!(gets("192.0.2.1:2", 1), filtering <= Dependence::Address);
            assert_eq!(gets("192.0.2.2:1", 1), filtering == Dependence::None);
        }
    }

    #[test]
    fn ports_follow_each_other_as_told() {
        let sequential = Allocation::Sequential { step: 2, others: 0 };
        let (mut router, mut rng) = router(Nat::symmetric(sequential));
        let mut port = |to| router.translate(far(INSIDE), far(to), Duration::ZERO, &mut rng).port();
        assert_eq!(port("192.0.2.1:1") + 2, port("192.0.2.1:2"));
    }
}
