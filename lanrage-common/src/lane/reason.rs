//! Why the lane does not carry a packet.

/// Why the lane does not carry a packet; each has its counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LaneReason {
    /// The lengths of an IPv4 or UDP header do not fit.
    Malformed,
    /// Group membership of the local kernel (IGMP): of no use to others.
    Igmp,
    /// A group packet of another protocol than UDP.
    NotUdp,
    /// A wrapped packet in a wrapped packet, or a group packet to the lane's own port.
    Nested,
    /// Address configuration: port 67 or 68. Never carried.
    Dhcp,
    /// Windows names: port 137 or 138. Never carried.
    Netbios,
    /// Windows names: port 5355. Never carried.
    Llmnr,
    /// Service discovery: port 5353, unless allowed.
    Mdns,
    /// UPnP discovery: port 1900, unless allowed.
    Ssdp,
    /// Windows service discovery: port 3702, unless allowed.
    Wsd,
    /// More than a burst of 200 and 200 a second of one source to one port.
    RateLimited,
    /// The packet would not fit an IPv4 packet once wrapped.
    Oversize,
    /// There is nobody to send to.
    NoMembers,
    /// Received: a group packet without wrapping.
    Unwrapped,
    /// Received: the wrapping is a fragment or has IP options, which no lane sends.
    BadWrapping,
    /// Received: outer or inner source is not the member that sent it.
    Spoofed,
    /// Received: the inner destination is not a group.
    NotGroup,
    /// Received: the same packet came before, within a second.
    Duplicate,
}

impl LaneReason {
    /// Stable name, for counters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Igmp => "igmp",
            Self::NotUdp => "not_udp",
            Self::Nested => "nested",
            Self::Dhcp => "dhcp",
            Self::Netbios => "netbios",
            Self::Llmnr => "llmnr",
            Self::Mdns => "mdns",
            Self::Ssdp => "ssdp",
            Self::Wsd => "wsd",
            Self::RateLimited => "rate_limited",
            Self::Oversize => "oversize",
            Self::NoMembers => "no_members",
            Self::Unwrapped => "unwrapped",
            Self::BadWrapping => "bad_wrapping",
            Self::Spoofed => "spoofed",
            Self::NotGroup => "not_group",
            Self::Duplicate => "duplicate",
        }
    }
}
