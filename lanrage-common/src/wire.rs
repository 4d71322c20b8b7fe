//! Fields as they lie on the wire, and Internet checksums (RFC 1071, RFC 1624).
//!
//! [`Be16`] and [`Be32`] hold the bytes in wire order with a register's alignment: the kernel program moves and compares
//! them with one instruction, and nothing can mix them up with numbers by accident.

/// Length of an Ethernet header without tags.
pub const ETHERNET_LEN: usize = 14;
/// Length of an IPv4 header without options (RFC 791).
pub const IPV4_LEN: usize = 20;
/// Length of a UDP header (RFC 768).
pub const UDP_LEN: usize = 8;
/// Shortest WireGuard data message: header (16 bytes) and tag (16) around an empty packet, which is a keepalive.
pub const WIREGUARD_DATA_LEN: usize = 32;
/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherTypes of VLAN tags, IEEE 802.1Q and 802.1ad.
pub const ETHERTYPES_VLAN: [u16; 2] = [0x8100, 0x88a8];
/// IP protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;
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

/// The Internet checksum of `bytes` (RFC 1071): over an IPv4 header it is the header checksum when the checksum field
/// itself is zero, and zero when the field is right.
pub fn checksum(bytes: &[u8]) -> u16 {
    !fold(sum(bytes))
}

/// The UDP checksum (RFC 768) of `datagram`, a UDP header with payload whose own checksum field counts as it is, between
/// two IPv4 addresses. A computed zero is returned as 0xFFFF, because zero on the wire means "none".
pub fn udp_checksum(source: [u8; 4], destination: [u8; 4], datagram: &[u8]) -> u16 {
    let pseudo = sum(&source) + sum(&destination) + u32::from(PROTOCOL_UDP) + datagram.len() as u32;
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

    /// The checksum after the change.
    #[inline(always)]
    pub const fn apply(self, checksum: Be16) -> Be16 {
        Be16(!fold(self.0 + (!checksum.0) as u32))
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
