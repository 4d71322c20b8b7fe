//! Why a packet left the kernel program, and how.

/// What the kernel does with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Goes up the host's network stack, untouched.
    Pass,
    /// Goes out of the interface it came in by, rewritten.
    Transmit,
    /// Goes out of another interface, rewritten.
    Redirect,
}

macro_rules! reasons {
    ($($(#[$doc:meta])+ $name:ident = $text:literal => $verdict:ident,)+) => {
        /// One for every way through the kernel program: index of its counter, name in metrics, row in the tests.
        ///
        /// Checks run in the order of declaration (the two successes apart), so a frame with several faults has the first.
        /// The numbers are part of the map layout ([`crate::maps::LAYOUT_VERSION`]).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Reason {
            $($(#[$doc])+ $name,)+
        }

        impl Reason {
            /// All of them, in order.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Stable name for metrics and status.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }

            /// What happens to the frame. Whatever is not forwarded belongs to the host: nothing is ever eaten.
            #[inline(always)]
            pub const fn verdict(self) -> Verdict {
                match self {
                    $(Self::$name => Verdict::$verdict,)+
                }
            }
        }
    };
}

reasons! {
    /// Forwarded out of the interface it came in by.
    Forwarded = "forwarded" => Transmit,
    /// Forwarded out of another interface.
    Redirected = "redirected" => Redirect,
    /// Too short for an Ethernet header.
    ShortFrame = "short_frame" => Pass,
    /// Carries a VLAN tag.
    Vlan = "vlan" => Pass,
    /// ARP, IPv6 and so on.
    NotIpv4 = "not_ipv4" => Pass,
    /// Too short for an IPv4 header.
    ShortIpv4 = "short_ipv4" => Pass,
    /// Version is not 4, or the header length is below 20 bytes.
    BadIpv4 = "bad_ipv4" => Pass,
    /// Has IPv4 options.
    IpOptions = "ip_options" => Pass,
    /// To another address than the relay's.
    OtherAddress = "other_address" => Pass,
    /// Another transport protocol.
    NotUdp = "not_udp" => Pass,
    /// A fragment, first ones included.
    Fragment = "fragment" => Pass,
    /// IPv4's total length is not what the frame holds, or has no room for UDP.
    Ipv4Length = "ipv4_length" => Pass,
    /// UDP's length is not what the packet holds.
    UdpLength = "udp_length" => Pass,
    /// To another port than the relay's.
    OtherPort = "other_port" => Pass,
    /// For the daemon: handshakes, bindings, probes.
    NotData = "not_data" => Pass,
    /// Looks like WireGuard data but a reserved byte is not zero.
    Reserved = "reserved" => Pass,
    /// WireGuard data shorter than a keepalive.
    ShortData = "short_data" => Pass,
    /// Time to live is used up.
    TtlExpired = "ttl_expired" => Pass,
    /// Nothing is installed for this source and receiver index.
    NoFlow = "no_flow" => Pass,
    /// The way to the destination is not known (yet), or it is this host.
    NoNextHop = "no_next_hop" => Pass,
    /// Larger than the next hop's MTU.
    TooBig = "too_big" => Pass,
}

impl Reason {
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
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(reason.index() as usize, index);
            assert!(
                reason
                    .name()
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
            );
            assert_eq!(Reason::ALL.iter().filter(|other| other.name() == reason.name()).count(), 1);
        }
    }
}
