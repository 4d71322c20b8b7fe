//! Fields as they lie on the wire, and Internet checksums (RFC 1071, RFC 1624).
//!
//! [`Be16`] and [`Be32`] hold the bytes in wire order with a register's alignment: the kernel program moves and compares
//! them with one instruction, and nothing can mix them up with numbers by accident.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Length of an Ethernet header without tags.
pub const ETHERNET_LEN: usize = 14;
/// Length of an Ethernet header with one VLAN tag.
pub const TAGGED_LEN: usize = 18;
/// Length of an IPv4 header without options (RFC 791).
pub const IPV4_LEN: usize = 20;
/// Length of an IPv6 header (RFC 8200).
pub const IPV6_LEN: usize = 40;
/// Length of a UDP header (RFC 768).
pub const UDP_LEN: usize = 8;
/// Shortest WireGuard data message: header (16 bytes) and tag (16) around an empty packet, which is a keepalive.
pub const WIREGUARD_DATA_LEN: usize = 32;
/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// EtherTypes of VLAN tags, IEEE 802.1Q and 802.1ad.
pub const ETHERTYPES_VLAN: [u16; 2] = [0x8100, 0x88a8];
/// IP protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;
/// Time to live, or hop limit, of packets that the relay makes itself.
pub const DEFAULT_TTL: u8 = 64;
/// More-fragments bit and fragment offset of IPv4's sixth and seventh byte.
pub const FRAGMENT_MASK: u16 = 0x3fff;
/// First four bytes of a WireGuard data message, read little-endian: type 4 and three zero bytes.
pub const WIREGUARD_DATA: u32 = 4;

/// Two bytes in wire order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct Be16(u16);

impl Be16 {
    /// From bytes as they lie on the wire.
    #[inline(always)]
    pub const fn from_octets(octets: [u8; 2]) -> Self {
        Self(u16::from_ne_bytes(octets))
    }

    /// From a number.
    #[inline(always)]
    pub const fn new(value: u16) -> Self {
        Self(value.to_be())
    }

    /// The number.
    #[inline(always)]
    pub const fn value(self) -> u16 {
        u16::from_be(self.0)
    }

    /// The bytes as they lie on the wire.
    #[inline(always)]
    pub const fn octets(self) -> [u8; 2] {
        self.0.to_ne_bytes()
    }

    /// Bit by bit exclusive or.
    #[inline(always)]
    #[must_use]
    pub const fn xor(self, other: Self) -> Self {
        Self(self.0 ^ other.0)
    }

    /// All bits zero?
    #[inline(always)]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

/// Four bytes in wire order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct Be32(u32);

impl Be32 {
    /// From bytes as they lie on the wire.
    #[inline(always)]
    pub const fn from_octets(octets: [u8; 4]) -> Self {
        Self(u32::from_ne_bytes(octets))
    }

    /// Two fields that lie side by side.
    #[inline(always)]
    pub const fn from_halves(first: Be16, second: Be16) -> Self {
        let ([a, b], [c, d]) = (first.octets(), second.octets());
        Self::from_octets([a, b, c, d])
    }

    /// Bit by bit exclusive or.
    #[inline(always)]
    #[must_use]
    pub const fn xor(self, other: Self) -> Self {
        Self(self.0 ^ other.0)
    }

    /// The bytes as they lie on the wire.
    #[inline(always)]
    pub const fn octets(self) -> [u8; 4] {
        self.0.to_ne_bytes()
    }

    /// All bits zero?
    #[inline(always)]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

/// IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Length of its header, without options or extensions.
    #[inline(always)]
    pub const fn header_len(self) -> usize {
        match self {
            Self::V4 => IPV4_LEN,
            Self::V6 => IPV6_LEN,
        }
    }
}

/// An IP address of either version, IPv4 as `::ffff:a.b.c.d` (RFC 4291, section 2.5.5.2). All zero = none. Aligned, because
/// the compiler writes it eight bytes at a time, and the kernel wants such writes to its stack aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(C, align(8))]
pub struct Address([Be32; 4]);

impl Address {
    const MAPPED: Be32 = Be32::from_octets([0, 0, 0xff, 0xff]);

    /// An IPv4 address.
    #[inline(always)]
    pub const fn from_v4(word: Be32) -> Self {
        Self([Be32(0), Be32(0), Self::MAPPED, word])
    }

    /// The sixteen bytes, four at a time.
    #[inline(always)]
    pub const fn from_words(words: [Be32; 4]) -> Self {
        Self(words)
    }

    /// The sixteen bytes, four at a time.
    #[inline(always)]
    pub const fn words(self) -> [Be32; 4] {
        self.0
    }

    /// An IPv4 address's own four bytes.
    #[inline(always)]
    pub const fn v4_word(self) -> Be32 {
        self.0[3]
    }

    /// Which IP version it belongs to.
    #[inline(always)]
    pub const fn family(self) -> Family {
        if self.0[2].0 == Self::MAPPED.0 && self.0[1].0 == 0 && self.0[0].0 == 0 {
            Family::V4
        } else {
            Family::V6
        }
    }

    /// No address at all?
    #[inline(always)]
    pub const fn is_none(self) -> bool {
        (self.0[0].0 | self.0[1].0 | self.0[2].0 | self.0[3].0) == 0
    }

    /// Can somebody be there, as far as the address alone tells? Not so groups, broadcast, "this network" and loopback.
    #[inline(always)]
    pub const fn is_unicast(self) -> bool {
        match self.family() {
            Family::V4 => {
                let first = self.v4_word().octets()[0];
                first != 0 && first != 127 && first < 224
            }
            Family::V6 => {
                let is_low = (self.0[0].0 | self.0[1].0 | self.0[2].0) == 0;
                !is_low && self.0[0].octets()[0] != 0xff
            }
        }
    }
}

impl From<Ipv4Addr> for Address {
    fn from(address: Ipv4Addr) -> Self {
        Self::from_v4(Be32::from_octets(address.octets()))
    }
}

impl From<Ipv6Addr> for Address {
    fn from(address: Ipv6Addr) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address.octets();
        Self([[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]].map(Be32::from_octets))
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => address.into(),
        }
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        let [a, b, c, d] = address.0.map(Be32::octets);
        let mut octets = [0; 16];
        for (at, word) in [a, b, c, d].into_iter().enumerate() {
            octets[at * 4..at * 4 + 4].copy_from_slice(&word);
        }
        Ipv6Addr::from(octets).to_canonical()
    }
}

/// The Internet checksum of `bytes` (RFC 1071): over an IPv4 header it is the header checksum when the checksum field
/// itself is zero, and zero when the field is right.
pub fn checksum(bytes: &[u8]) -> u16 {
    !fold(sum(bytes))
}

/// The UDP checksum (RFC 768, RFC 8200 section 8.1) of `datagram`, a UDP header with payload whose own checksum field
/// counts as it is, between two addresses of 4 or 16 bytes. A computed zero is returned as 0xFFFF, because zero on the
/// wire means "none".
pub fn udp_checksum(source: &[u8], destination: &[u8], datagram: &[u8]) -> u16 {
    let pseudo = sum(source) + sum(destination) + u32::from(PROTOCOL_UDP) + datagram.len() as u32;
    match !fold(pseudo + u32::from(fold(sum(datagram)))) {
        0 => 0xffff,
        checksum => checksum,
    }
}

/// Sum of big-endian words; the caller folds. Cannot overflow below 128 KiB.
fn sum(bytes: &[u8]) -> u32 {
    let mut words = bytes.chunks_exact(2);
    let whole: u32 = words.by_ref().map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    whole + words.remainder().first().map_or(0, |last| u32::from(*last) << 8)
}

/// Adds the carries back in, twice, which is enough for any 32-bit sum.
#[inline(always)]
const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// A change of some fields, to be carried over into every checksum that covers them (RFC 1624, equation 3).
///
/// Words may be added in wire order, because the ones' complement sum does not depend on byte order.
#[derive(Debug, Clone, Copy, Default)]
pub struct ChecksumDelta(u32);

impl ChecksumDelta {
    /// No change.
    #[inline(always)]
    pub const fn new() -> Self {
        Self(0)
    }

    /// A 16-bit field that lies on an even offset changes from `old` to `new`.
    #[inline(always)]
    #[must_use]
    pub const fn replace16(self, old: Be16, new: Be16) -> Self {
        Self(self.0 + (!old.0) as u32 + new.0 as u32)
    }

    /// A 32-bit field that lies on an even offset changes from `old` to `new`.
    #[inline(always)]
    #[must_use]
    pub const fn replace32(self, old: Be32, new: Be32) -> Self {
        let (old, new) = (!old.0, new.0);
        Self(self.0 + (old & 0xffff) + (old >> 16) + (new & 0xffff) + (new >> 16))
    }

    /// An address of the pseudo header changes, within its family or to the other.
    #[inline(always)]
    #[must_use]
    pub const fn replace_address(self, old: (Family, &Address), new: (Family, &Address)) -> Self {
        Self(self.0 + (!fold(words_of(old))) as u32 + words_of(new))
    }

    /// The field appears.
    #[inline(always)]
    #[must_use]
    pub const fn add16(self, new: Be16) -> Self {
        Self(self.0 + new.0 as u32)
    }

    /// The field appears.
    #[inline(always)]
    #[must_use]
    pub const fn add32(self, new: Be32) -> Self {
        Self(self.0 + (new.0 & 0xffff) + (new.0 >> 16))
    }

    /// An address of the pseudo header appears.
    #[inline(always)]
    #[must_use]
    pub const fn add_address(self, new: (Family, &Address)) -> Self {
        Self(self.0 + words_of(new))
    }

    /// The checksum of what appeared alone.
    #[inline(always)]
    pub const fn checksum(self) -> Be16 {
        Be16(!fold(self.0))
    }

    /// The checksum after the change.
    #[inline(always)]
    pub const fn apply(self, checksum: Be16) -> Be16 {
        Be16(!fold(self.0 + (!checksum.0) as u32))
    }

    /// The UDP checksum of what appeared alone: a computed zero becomes 0xFFFF (RFC 768).
    #[inline(always)]
    pub const fn udp_checksum(self) -> Be16 {
        let checksum = self.checksum();
        if checksum.is_zero() { Be16(0xffff) } else { checksum }
    }

    /// The UDP checksum after the change: none stays none, and a computed zero becomes 0xFFFF (RFC 768).
    #[inline(always)]
    pub const fn apply_udp(self, checksum: Be16) -> Be16 {
        if checksum.is_zero() {
            return checksum;
        }
        let changed = self.apply(checksum);
        if changed.is_zero() { Be16(0xffff) } else { changed }
    }
}

/// Sum of an address's 16-bit words as its family counts them.
#[inline(always)]
const fn words_of((family, address): (Family, &Address)) -> u32 {
    let [a, b, c, d] = address.0;
    let low = (d.0 & 0xffff) + (d.0 >> 16);
    match family {
        Family::V4 => low,
        Family::V6 => {
            let high = (a.0 & 0xffff) + (a.0 >> 16) + (b.0 & 0xffff) + (b.0 >> 16);
            low + high + (c.0 & 0xffff) + (c.0 >> 16)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worked example of RFC 1624, section 4: the older equation gives 0xFFFF here.
    #[test]
    fn rfc1624_example() {
        let delta = ChecksumDelta::new().replace16(Be16::new(0x5555), Be16::new(0x3285));
        assert_eq!(delta.apply(Be16::new(0xdd2f)), Be16::new(0x0000));
    }

    #[test]
    fn rfc1071_example() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(&bytes), !0xddf2);
        assert_eq!(checksum(&bytes[..7]), !0xdcfb);
    }

    #[test]
    fn no_udp_checksum_stays_none_and_computed_zero_is_sent_as_ones() {
        let delta = ChecksumDelta::new().replace16(Be16::new(0x5555), Be16::new(0x3285));
        assert_eq!(delta.apply_udp(Be16::new(0)), Be16::new(0));
        assert_eq!(delta.apply_udp(Be16::new(0xdd2f)), Be16::new(0xffff));
    }

    #[test]
    fn wire_order_is_kept() {
        assert_eq!(Be16::new(0x0d96).octets(), [0x0d, 0x96]);
        assert_eq!(Be16::from_octets([0x0d, 0x96]).value(), 0x0d96);
        assert_eq!(Be32::from_octets([10, 66, 0, 1]).octets(), [10, 66, 0, 1]);
    }
}
