//! Who does what in a hunt, and which ports are worth a probe.

use crate::nat::{Allocation, Behaviour, How, Mapping, verdict};
use rand_core::CryptoRngCore;

/// Ports beside the first one that a predicted mapping may have got: those of other programs come in between.
const WINDOW: i32 = 24;
/// Steps up to this may be the sum of smaller ones, so every port is tried.
const SMALL_STEP: u32 = 3;
/// Which mapping after the one that was looked at is told where the member has a single aim.
const AHEAD: i32 = 5;
/// Ports below are never given to mappings (RFC 4787, REQ-3).
const FIRST_PORT: u32 = 1024;
const PORTS: u32 = 65_536 - FIRST_PORT;

/// What one end does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Behind the router that changes ports: opens sockets, and sends from them to the member's one address.
    Opener,
    /// Behind the router that does not: sends from its own socket to ports of the member's router.
    Shooter,
    /// Both routers change ports: every end opens sockets and aims at the other's next port.
    Both,
}

/// How a pair hunts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub how: How,
    pub role: Role,
    /// Begins; the other end only joins in.
    pub leads: bool,
    /// The tests say that the routers need no hunt. It is a guess that they flatter.
    pub is_guess: bool,
    own_step: i32,
    far_step: i32,
}

impl Plan {
    /// None when the routers need no hunt, do not allow one, or are not known. `is_first` differs between both ends.
    pub fn of(own: &Behaviour, far: &Behaviour, is_first: bool) -> Option<Self> {
        Self::sure(own, far, is_first).or_else(|| Self::guess(own, far, is_first))
    }

    /// Address-dependent mapping looks endpoint-independent to a server that has one address only.
    fn guess(own: &Behaviour, far: &Behaviour, is_first: bool) -> Option<Self> {
        verdict(own, far).how().filter(|how| *how == How::Punch)?;
        let plan = Self::sure(&doubted(own), &doubted(far), is_first)?;
        Some(Self { is_guess: true, ..plan })
    }

    fn sure(own: &Behaviour, far: &Behaviour, is_first: bool) -> Option<Self> {
        let how = verdict(own, far).how().filter(|how| matches!(how, How::Predicted | How::Birthday))?;
        let is_symmetric = |end: &Behaviour| Some(end.mapping? != Mapping::EndpointIndependent);
        let (role, leads) = match (is_symmetric(own)?, is_symmetric(far)?) {
            (true, true) => (Role::Both, is_first),
            (true, false) => (Role::Opener, true),
            (false, true) => (Role::Shooter, false),
            (false, false) => return None,
        };
        Some(Self { how, role, leads, is_guess: false, own_step: step(own), far_step: step(far) })
    }

    /// The port to tell the member, after a mapping that was just made for another socket: a shooter tries all from the
    /// next one on, and who has a single aim gets one that surely belongs to some of the sockets.
    pub fn predict(&self, local: u16, anchor: Anchor) -> Option<u16> {
        if anchor.local == anchor.seen {
            return Some(local);
        }
        let ahead = if self.role == Role::Both { AHEAD * self.own_step } else { stride(self.own_step) };
        port(i32::from(anchor.seen) + ahead)
    }

    /// The ports that the member's mapping may have, the likeliest first.
    pub fn window(&self, first: u16) -> impl Iterator<Item = u16> {
        let stride = stride(self.far_step);
        (0..WINDOW).filter_map(move |n| port(i32::from(first) + stride * n))
    }
}

/// A socket whose mapping is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Anchor {
    /// Its own port.
    pub local: u16,
    /// The port that its router gave it.
    pub seen: u16,
}

/// The worst that a router may be which counts its ports up. One that keeps the socket's port does so, mostly, for every
/// address.
fn doubted(end: &Behaviour) -> Behaviour {
    let counts = matches!(end.allocation, Some(Allocation::Step(_)));
    let mapping = match end.mapping {
        Some(Mapping::EndpointIndependent) if counts && end.is_public != Some(true) => {
            Some(Mapping::AddressDependent)
        }
        told => told,
    };
    Behaviour { mapping, ..end.clone() }
}

fn step(end: &Behaviour) -> i32 {
    match end.allocation {
        Some(Allocation::Step(step)) if step != 0 => step.into(),
        _ => 1,
    }
}

fn stride(step: i32) -> i32 {
    if step.unsigned_abs() <= SMALL_STEP { step.signum() } else { step }
}

fn port(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| u32::from(*port) >= FIRST_PORT)
}

/// All ports in an order that looks random, none twice before all have come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scatter {
    at: u32,
    stride: u32,
}

impl Scatter {
    pub fn new(rng: &mut dyn CryptoRngCore) -> Self {
        let at = rng.next_u32() % PORTS;
        // prime to 64512 = 2^10 * 3^2 * 7
        let mut stride = (rng.next_u32() % PORTS) | 1;
        while stride.is_multiple_of(3) || stride.is_multiple_of(7) {
            stride += 2;
        }
        Self { at, stride }
    }

    pub fn next_port(&mut self) -> u16 {
        self.at = (self.at + self.stride) % PORTS;
        (FIRST_PORT + self.at) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::Filtering;
    use rand::SeedableRng as _;
    use std::collections::BTreeSet;

    const STRICT: Filtering = Filtering::AddressAndPortDependent;

    fn symmetric(allocation: Allocation) -> Behaviour {
        Behaviour {
            is_cgnat: Some(false),
            ..Behaviour::nat(Mapping::AddressAndPortDependent, STRICT, allocation)
        }
    }

    fn cone(filtering: Filtering) -> Behaviour {
        let nat = Behaviour::nat(Mapping::EndpointIndependent, filtering, Allocation::Random);
        Behaviour { is_cgnat: Some(false), ..nat }
    }

    fn plan(own: &Behaviour, far: &Behaviour) -> Option<(How, Role, bool)> {
        Plan::of(own, far, true).map(|plan| (plan.how, plan.role, plan.leads))
    }

    #[test]
    fn both_ends_take_parts_that_fit() {
        let (random, steps) = (symmetric(Allocation::Random), symmetric(Allocation::Step(2)));
        let strict = cone(STRICT);
        assert_eq!(plan(&random, &strict), Some((How::Birthday, Role::Opener, true)));
        assert_eq!(plan(&strict, &random), Some((How::Birthday, Role::Shooter, false)));
        assert_eq!(plan(&steps, &strict), Some((How::Predicted, Role::Opener, true)));
        assert_eq!(plan(&steps, &steps), Some((How::Predicted, Role::Both, true)));
        assert!(Plan::of(&steps, &steps, false).is_some_and(|plan| !plan.leads));
    }

    #[test]
    fn routers_that_ought_to_meet_are_doubted_where_that_can_help() {
        let counting =
            |filtering, step| Behaviour { allocation: Some(Allocation::Step(step)), ..cone(filtering) };
        let steps = counting(Filtering::AddressDependent, 1);
        let guess = |own: &Behaviour, far: &Behaviour| {
            Plan::of(own, far, true).map(|plan| (plan.role, plan.leads, plan.is_guess))
        };
        let strict = cone(STRICT);
        let keeps = Behaviour { allocation: Some(Allocation::Preserving), ..strict.clone() };
        for far in [&strict, &keeps] {
            assert_eq!(guess(&steps, far), Some((Role::Opener, true, true)));
            assert_eq!(guess(far, &steps), Some((Role::Shooter, false, true)));
        }
        assert_eq!(guess(&steps, &steps), Some((Role::Both, true, true)));
        assert_eq!(guess(&steps, &symmetric(Allocation::Step(2))), Some((Role::Both, true, true)));
        let public = Behaviour { is_public: Some(true), ..steps.clone() };
        let unknown = Behaviour { allocation: None, ..steps.clone() };
        for (own, far) in [(&public, &strict), (&steps, &symmetric(Allocation::Random)), (&unknown, &strict)]
        {
            assert_eq!(guess(own, far), None, "{own:?} {far:?}");
        }
        assert_eq!(
            guess(&steps, &cone(Filtering::EndpointIndependent)),
            None,
            "a punch reaches that one anyway"
        );
    }

    #[test]
    fn what_cannot_work_or_needs_none_is_not_hunted() {
        let (random, steps) = (symmetric(Allocation::Random), symmetric(Allocation::Step(2)));
        let forwarded = Behaviour { port_mapping: Some(crate::nat::PortMapping::Pcp), ..random.clone() };
        for (own, far) in [
            (&random, &random),
            (&random, &steps),
            (&cone(STRICT), &cone(STRICT)),
            (&random, &cone(Filtering::AddressDependent)),
            (&forwarded, &cone(STRICT)),
            (&random, &Behaviour::default()),
            (&Behaviour::default(), &Behaviour::default()),
        ] {
            assert_eq!(plan(own, far), None, "{own:?} {far:?}");
        }
    }

    #[test]
    fn windows_follow_the_step_and_never_wrap() {
        let ports = |step, first| {
            let plan = Plan::of(&cone(STRICT), &symmetric(Allocation::Step(step)), true).unwrap();
            plan.window(first).collect::<Vec<_>>()
        };
        assert_eq!(ports(1, 5000)[..3], [5000, 5001, 5002]);
        assert_eq!(ports(2, 5000)[..3], [5000, 5001, 5002], "two may be two times one");
        assert_eq!(ports(-1, 5000)[..3], [5000, 4999, 4998]);
        assert_eq!(ports(8, 5000)[..3], [5000, 5008, 5016]);
        assert_eq!(ports(1, 65_534), [65_534, 65_535]);
        assert_eq!(ports(-1, 1024), [1024]);
    }

    #[test]
    fn a_scatter_has_every_port_once() {
        for seed in 0..20 {
            let mut scatter = Scatter::new(&mut rand::rngs::StdRng::seed_from_u64(seed));
            let all: BTreeSet<u16> = (0..PORTS).map(|_| scatter.next_port()).collect();
            assert_eq!((all.len() as u32, all.first().copied()), (PORTS, Some(1024)));
        }
    }
}
