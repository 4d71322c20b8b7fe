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
    /// Thrown away: the daemon would do the same, at a higher price.
    Drop,
}

/// Which budget a packet must have before the daemon sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// The member's data.
    Data,
    /// The member's handshakes, and what is no protocol of ours.
    Control,
    /// The member's path probes.
    Probes,
    /// This CPU's STUN from anybody, the member's handshakes beyond that.
    Stun,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal => $verdict:ident,)+) => {
        /// One for every way through the kernel program: index of its counter, name in metrics, row in the tests.
        ///
        /// Checks run in the order of declaration (the successes apart), so a frame with several faults has the first.
        /// The numbers are part of the map layout ([`crate::maps::LAYOUT_VERSION`]).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
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

            /// The same in a sentence.
            pub const fn explanation(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($doc),+).trim_ascii(),)+
                }
            }

            /// What happens to the frame.
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
    /// A STUN Binding request, answered.
    StunAnswered = "stun_answered" => Transmit,
    /// Too short for an Ethernet header, or for the VLAN tag that it announces.
    ShortFrame = "short_frame" => Pass,
    /// Carries more than one VLAN tag.
    SecondTag = "second_tag" => Pass,
    /// ARP and so on.
    NotIp = "not_ip" => Pass,
    /// Too short for an IP header.
    ShortIp = "short_ip" => Pass,
    /// The version is not the EtherType's, the header length is impossible, or an IPv4 address is disguised as IPv6.
    BadIp = "bad_ip" => Pass,
    /// Has IPv4 options.
    IpOptions = "ip_options" => Pass,
    /// To another address than the relay's.
    OtherAddress = "other_address" => Pass,
    /// A fragment, first ones included.
    Fragment = "fragment" => Pass,
    /// Has IPv6 extension headers.
    ExtensionHeader = "extension_header" => Pass,
    /// Another transport protocol.
    NotUdp = "not_udp" => Pass,
    /// Too short for a UDP header.
    ShortUdp = "short_udp" => Pass,
    /// To another port than the relay's.
    OtherPort = "other_port" => Pass,
    /// The IP length is not what the frame holds.
    IpLength = "ip_length" => Pass,
    /// UDP's length is not what the packet holds.
    UdpLength = "udp_length" => Pass,
    /// STUN for the daemon: Bind, and Binding requests that want more than an address.
    StunPassed = "stun_passed" => Pass,
    /// More STUN than the daemon wants.
    StunFlood = "stun_flood" => Drop,
    /// A path probe, for the daemon.
    Probe = "probe" => Pass,
    /// For the daemon: handshakes, and what is no protocol of ours.
    NotData = "not_data" => Pass,
    /// Looks like WireGuard data but a reserved byte is not zero.
    Reserved = "reserved" => Pass,
    /// WireGuard data shorter than a keepalive.
    ShortData = "short_data" => Pass,
    /// Time to live, or the hop limit, is used up.
    TtlExpired = "ttl_expired" => Pass,
    /// Nothing is installed for this source and receiver index.
    NoFlow = "no_flow" => Pass,
    /// From nobody who is bound.
    Unbound = "unbound" => Drop,
    /// More handshakes than a member may send.
    RateHandshake = "rate_handshake" => Drop,
    /// More path probes than a member may send.
    RateProbe = "rate_probe" => Drop,
    /// The flow is over, and nobody has said otherwise.
    FlowExpired = "flow_expired" => Pass,
    /// More data than the member may send.
    RateMember = "rate_member" => Drop,
    /// More data than the relay may forward.
    RateGlobal = "rate_global" => Drop,
    /// The way to the destination is not known (yet), or it is this host.
    NoNextHop = "no_next_hop" => Pass,
    /// Larger than the next hop's MTU.
    TooBig = "too_big" => Pass,
    /// Its headers would change in size, which this host's drivers may not allow: the daemon does it.
    Mixed = "mixed" => Pass,
    /// Would become IPv6, which wants the UDP checksum that it does not have.
    NoChecksum = "no_checksum" => Pass,
    /// There is no room in front of the frame for its larger headers.
    NoHeadroom = "no_headroom" => Pass,
    /// Not where it was after the kernel had moved its head or tail. Cannot happen; such a frame helps nobody.
    Broken = "broken" => Drop,
}

impl Reason {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Index of its counter.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self as u32
    }

    /// What of the relay's own traffic needs a budget to be passed up.
    #[inline(always)]
    pub const fn budget(self) -> Option<Budget> {
        match self {
            Self::NoFlow => Some(Budget::Data),
            Self::Probe => Some(Budget::Probes),
            Self::StunPassed => Some(Budget::Stun),
            Self::IpLength
            | Self::UdpLength
            | Self::NotData
            | Self::Reserved
            | Self::ShortData
            | Self::TtlExpired => Some(Budget::Control),
            _ => None,
        }
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
