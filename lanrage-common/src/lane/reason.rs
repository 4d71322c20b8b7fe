//! Why the lane does not carry a packet.

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// Why the lane does not carry a packet; each has its counter, in userspace and in the kernel.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum LaneReason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl LaneReason {
            /// All of them, in order.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Stable name, for counters.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

reasons! {
    /// The lengths of an IP or UDP header do not fit.
    Malformed = "malformed",
    /// Group membership of the local kernel (IGMP, MLD): of no use to others.
    Igmp = "igmp",
    /// A group packet of another protocol than UDP.
    NotUdp = "not_udp",
    /// A wrapped packet in a wrapped packet, or a group packet to the lane's own port.
    Nested = "nested",
    /// Address configuration: port 67, 68, 546 or 547. Never carried.
    Dhcp = "dhcp",
    /// Windows names: port 137 or 138. Never carried.
    Netbios = "netbios",
    /// Windows names: port 5355. Never carried.
    Llmnr = "llmnr",
    /// Service discovery: port 5353, unless allowed.
    Mdns = "mdns",
    /// UPnP discovery: port 1900, unless allowed.
    Ssdp = "ssdp",
    /// Windows service discovery: port 3702, unless allowed.
    Wsd = "wsd",
    /// More than a burst of 200 and 200 a second of one source to one port.
    RateLimited = "rate_limited",
    /// The packet would not fit an IPv4 packet once wrapped.
    Oversize = "oversize",
    /// There is nobody to send to.
    NoMembers = "no_members",
    /// No member has joined the group, and it is more than a search.
    NotJoined = "not_joined",
    /// Received: a group packet without wrapping.
    Unwrapped = "unwrapped",
    /// Received: the wrapping is a fragment or has IP options, which no lane sends.
    BadWrapping = "bad_wrapping",
    /// Received: outer or inner source is not the member that sent it. Sent: IPv6 from an address of another network.
    Spoofed = "spoofed",
    /// Received: the inner destination is neither a group nor this device.
    NotGroup = "not_group",
    /// Received: the same packet came before, within a second.
    Duplicate = "duplicate",
    /// Sent: the same goes round, because programs repeat it between members' networks.
    Looped = "looped",
    /// In the kernel: several datagrams in one (UDP_SEGMENT), which cannot be wrapped as one.
    Segmented = "segmented",
    /// In the kernel: the packet could not be made longer or shorter.
    Resize = "resize",
}

impl LaneReason {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Index of its counter.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_dense_and_names_unique() {
        for (index, reason) in LaneReason::ALL.iter().enumerate() {
            assert_eq!(reason.index() as usize, index);
            assert_eq!(LaneReason::ALL.iter().filter(|other| other.name() == reason.name()).count(), 1);
        }
    }
}
