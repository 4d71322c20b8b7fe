//! Whether two members can talk directly, told from their NATs alone.

use super::{Allocation, Behaviour, Filtering, Mapping};
use serde::{Deserialize, Serialize};

/// One end of a pair, or both. The first end is the one whose behaviour is the first argument of [`verdict`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// The first: this device.
    First,
    /// The second: the other member.
    Second,
    /// Any one of them is enough.
    Either,
    /// Both.
    Both,
}

/// How a direct path comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// Over the LAN that both are in.
    Lan,
    /// Over IPv6, where addresses are not translated.
    Ipv6,
    /// To a port that a router forwards.
    Mapped,
    /// By probes of both ends at the same time.
    Punch,
    /// By probes to ports next to the last ones seen.
    Predicted,
    /// By many sockets and many probes, of which two meet.
    Birthday,
}

/// Why there is no direct path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// UDP gets no answer in the network of these.
    UdpBlocked(Who),
    /// Both routers use other ports for every destination, and those of these cannot be foretold.
    RandomPorts(Who),
    /// Both are behind one carrier's NAT, which does not lead packets back inside.
    NoHairpin,
}

/// The one change that makes a direct path possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fix {
    /// Let UDP out.
    AllowUdp(Who),
    /// Switch on UPnP, NAT-PMP or PCP in the router, or forward the port by hand.
    MapPort(Who),
    /// Get IPv6.
    Ipv6(Who),
}

/// What can be expected of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// A direct path, in this way. When several will do it is the surest.
    Direct(How),
    /// Too little is known.
    Unknown,
    /// Only a relay.
    Relayed {
        /// The obstacle.
        why: Why,
        /// What removes it.
        fix: Fix,
    },
}

impl Who {
    fn swapped(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
            both => both,
        }
    }

    /// Which ends these are; `None` when none.
    fn of(first: bool, second: bool) -> Option<Self> {
        match (first, second) {
            (true, true) => Some(Self::Both),
            (true, false) => Some(Self::First),
            (false, true) => Some(Self::Second),
            (false, false) => None,
        }
    }
}

impl Verdict {
    /// The same, as the other end says it.
    pub fn swapped(self) -> Self {
        let Self::Relayed { why, fix } = self else { return self };
        let why = match why {
            Why::UdpBlocked(who) => Why::UdpBlocked(who.swapped()),
            Why::RandomPorts(who) => Why::RandomPorts(who.swapped()),
            Why::NoHairpin => Why::NoHairpin,
        };
        let fix = match fix {
            Fix::AllowUdp(who) => Fix::AllowUdp(who.swapped()),
            Fix::MapPort(who) => Fix::MapPort(who.swapped()),
            Fix::Ipv6(who) => Fix::Ipv6(who.swapped()),
        };
        Self::Relayed { why, fix }
    }

    /// How the path becomes direct, when it can.
    pub fn how(self) -> Option<How> {
        match self {
            Self::Direct(how) => Some(how),
            Self::Unknown | Self::Relayed { .. } => None,
        }
    }
}

/// What can be expected of a pair. The first row that fits holds:
///
/// | pair | verdict |
/// |---|---|
/// | UDP blocked at either end | relayed |
/// | one public address, no carrier's NAT | LAN |
/// | both have IPv6 | IPv6 |
/// | either has a forwarded port | mapped |
/// | one carrier's NAT that does not hairpin | relayed |
/// | both endpoint-independent mapping, any filtering | punch |
/// | one endpoint-independent with endpoint-independent or address-dependent filtering, the other symmetric | punch |
/// | one endpoint-independent with strict filtering, the other symmetric and predictable | predicted |
/// | one endpoint-independent with strict filtering, the other symmetric and random | birthday |
/// | both symmetric and predictable | predicted |
/// | both symmetric, any of them random | relayed |
///
/// What is unknown is tried both ways, as the worst and as the best; where that decides between direct and relayed the
/// verdict is [`Verdict::Unknown`], else it is that of the worst, and its fix that of the best. IPv6 and forwarded ports that nobody told of are not
/// there.
pub fn verdict(first: &Behaviour, second: &Behaviour) -> Verdict {
    let worst = decide(&Ends::new(first, second, Facts::worst));
    let best = decide(&Ends::new(first, second, Facts::best));
    match (worst, best) {
        (Verdict::Relayed { .. }, Verdict::Direct(_)) => Verdict::Unknown,
        // what is not known to stand in the way is no obstacle to a fix
        (Verdict::Relayed { .. }, best) => best,
        _ => worst,
    }
}

/// A behaviour without gaps.
#[derive(Debug, Clone, Copy)]
struct Facts {
    udp_blocked: bool,
    is_cgnat: bool,
    hairpin: bool,
    has_ipv6: bool,
    is_port_mapped: bool,
    mapping: Mapping,
    filtering: Filtering,
    is_random: bool,
}

impl Facts {
    fn worst(known: &Behaviour) -> Self {
        Self {
            udp_blocked: known.udp_blocked.unwrap_or(known.mapping.is_none()),
            is_cgnat: known.is_cgnat.unwrap_or(true),
            hairpin: known.hairpin.unwrap_or(false),
            mapping: known.mapping.unwrap_or(Mapping::AddressAndPortDependent),
            filtering: known.filtering.unwrap_or(Filtering::AddressAndPortDependent),
            is_random: known.allocation.is_none_or(|allocation| allocation == Allocation::Random),
            ..Self::told(known)
        }
    }

    fn best(known: &Behaviour) -> Self {
        Self {
            udp_blocked: known.udp_blocked.unwrap_or(false),
            is_cgnat: known.is_cgnat.unwrap_or(false),
            hairpin: known.hairpin.unwrap_or(true),
            mapping: known.mapping.unwrap_or(Mapping::EndpointIndependent),
            filtering: known.filtering.unwrap_or(Filtering::EndpointIndependent),
            is_random: known.allocation == Some(Allocation::Random),
            ..Self::told(known)
        }
    }

    fn told(known: &Behaviour) -> Self {
        Self {
            udp_blocked: false,
            is_cgnat: false,
            hairpin: false,
            has_ipv6: known.has_ipv6 == Some(true),
            is_port_mapped: known.is_port_mapped(),
            mapping: Mapping::EndpointIndependent,
            filtering: Filtering::EndpointIndependent,
            is_random: false,
        }
    }

    fn is_symmetric(&self) -> bool {
        self.mapping != Mapping::EndpointIndependent
    }
}

struct Ends {
    first: Facts,
    second: Facts,
    /// The internet sees both at one address.
    share_address: bool,
}

impl Ends {
    fn new(first: &Behaviour, second: &Behaviour, fill: fn(&Behaviour) -> Facts) -> Self {
        let share_address = first.public_address.is_some() && first.public_address == second.public_address;
        Self { first: fill(first), second: fill(second), share_address }
    }

    fn who(&self, which: impl Fn(&Facts) -> bool) -> Option<Who> {
        Who::of(which(&self.first), which(&self.second))
    }
}

fn decide(ends: &Ends) -> Verdict {
    if let Some(who) = ends.who(|end| end.udp_blocked) {
        return Verdict::Relayed { why: Why::UdpBlocked(who), fix: Fix::AllowUdp(who) };
    }
    let is_behind_carrier = ends.who(|end| end.is_cgnat).is_some();
    if ends.share_address && !is_behind_carrier {
        return Verdict::Direct(How::Lan);
    }
    if ends.who(|end| end.has_ipv6) == Some(Who::Both) {
        return Verdict::Direct(How::Ipv6);
    }
    if ends.who(|end| end.is_port_mapped).is_some() {
        return Verdict::Direct(How::Mapped);
    }
    if ends.share_address && ends.who(|end| end.hairpin) != Some(Who::Both) {
        return Verdict::Relayed { why: Why::NoHairpin, fix: fix_by_ipv6(ends) };
    }
    decide_by_nats(ends)
}

fn decide_by_nats(ends: &Ends) -> Verdict {
    let (friendly, symmetric) = match (ends.first.is_symmetric(), ends.second.is_symmetric()) {
        (false, false) => return Verdict::Direct(How::Punch),
        (false, true) => (&ends.first, &ends.second),
        (true, false) => (&ends.second, &ends.first),
        (true, true) => return decide_symmetric(ends),
    };
    Verdict::Direct(match friendly.filtering {
        Filtering::EndpointIndependent | Filtering::AddressDependent => How::Punch,
        Filtering::AddressAndPortDependent if symmetric.is_random => How::Birthday,
        Filtering::AddressAndPortDependent => How::Predicted,
    })
}

fn decide_symmetric(ends: &Ends) -> Verdict {
    let Some(random) = ends.who(|end| end.is_random) else { return Verdict::Direct(How::Predicted) };
    Verdict::Relayed { why: Why::RandomPorts(random), fix: fix_by_port(ends) }
}

/// What makes a direct path sure where it takes luck ([`How::Predicted`], [`How::Birthday`]).
pub fn sure_fix(first: &Behaviour, second: &Behaviour) -> Fix {
    fix_by_port(&Ends::new(first, second, Facts::best))
}

/// Those whose router can forward a port do.
fn fix_by_port(ends: &Ends) -> Fix {
    match ends.who(|end| !end.is_cgnat) {
        Some(Who::Both) => Fix::MapPort(Who::Either),
        Some(who) => Fix::MapPort(who),
        None => fix_by_ipv6(ends),
    }
}

/// Those who lack IPv6 get it.
fn fix_by_ipv6(ends: &Ends) -> Fix {
    Fix::Ipv6(ends.who(|end| !end.has_ipv6).unwrap_or(Who::Both))
}
