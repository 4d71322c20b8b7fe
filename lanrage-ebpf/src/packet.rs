//! A frame in the driver's memory, by fixed offsets: the only module that touches packet bytes.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail};
use core::ptr;
use lanrage_common::forward::{self, Edits, Headers, Layout};
use lanrage_common::maps::{FlowValue, NextHop};
use lanrage_common::wire::{
    Address, Be16, Be32, ETHERNET_LEN, Family, IPV4_LEN, IPV6_LEN, TAGGED_LEN, UDP_LEN,
};

/// Offset of the EtherType, or of the VLAN tag's.
const ETHERTYPE: usize = 12;
/// Tag of IEEE 802.1Q.
const TAG: Be16 = Be16::new(0x8100);
/// Priority and drop eligibility in a tag; the rest is the VLAN.
const PRIORITY: u16 = 0xf000;

/// Bytes that are known to be there, because only [`Frame::begin`] makes one after asking: a link header of `L2` bytes, an
/// IP header of `L3` and `MORE` from the UDP header on. Reads beyond them do not compile.
#[derive(Clone, Copy)]
pub struct Checked<const L2: usize, const L3: usize, const MORE: usize>(*mut u8);

/// The whole frame.
#[derive(Clone, Copy)]
pub struct Frame {
    start: usize,
    end: usize,
}

impl Frame {
    /// The frame that a program was called for, as it is now: after its head or tail has moved it is another one.
    #[inline(always)]
    pub fn new(context: *mut xdp_md) -> Self {
        // SAFETY: the kernel hands a valid context to the program.
        unsafe { Self { start: (*context).data as usize, end: (*context).data_end as usize } }
    }

    /// Length in bytes.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Its first bytes. The comparison has the one form that every verifier follows.
    #[inline(always)]
    pub fn begin<const L2: usize, const L3: usize, const MORE: usize>(
        &self,
    ) -> Option<Checked<L2, L3, MORE>> {
        if self.start + L2 + L3 + MORE > self.end { None } else { Some(Checked(self.start as *mut u8)) }
    }

    /// Four bytes at an offset that is known only now.
    #[inline(always)]
    pub fn word(&self, at: usize) -> Option<Be32> {
        let word = self.start + at;
        if word + 4 > self.end {
            return None;
        }
        // SAFETY: in bounds, checked above; an integer.
        Some(unsafe { ptr::read_unaligned(word as *const Be32) })
    }
}

/// Moves the frame's beginning: forward to make it shorter. On failure the frame is as before.
#[inline(always)]
pub fn move_head(context: *mut xdp_md, by: i32) -> bool {
    // SAFETY: the context is the program's own.
    unsafe { bpf_xdp_adjust_head(context, by) == 0 }
}

/// Moves the frame's end: backward to make it shorter. On failure the frame is as before.
#[inline(always)]
pub fn move_tail(context: *mut xdp_md, by: i32) -> bool {
    // SAFETY: the context is the program's own.
    unsafe { bpf_xdp_adjust_tail(context, by) == 0 }
}

impl<const L2: usize, const L3: usize, const MORE: usize> Checked<L2, L3, MORE> {
    #[inline(always)]
    fn read<T: Copy>(self, at: usize) -> T {
        // SAFETY: the callers below have asserted that it is in bounds; only integer types are read.
        unsafe { ptr::read_unaligned(self.0.add(at).cast()) }
    }

    #[inline(always)]
    fn write<T: Copy>(self, at: usize, value: T) {
        // SAFETY: as in `read`.
        unsafe { ptr::write_unaligned(self.0.add(at).cast(), value) }
    }

    #[inline(always)]
    fn link<T: Copy, const AT: usize>(self) -> T {
        const { assert!(AT + size_of::<T>() <= L2) };
        self.read(AT)
    }

    #[inline(always)]
    fn ip<T: Copy, const AT: usize>(self) -> T {
        const { assert!(AT + size_of::<T>() <= L3) };
        self.read(L2 + AT)
    }

    /// From the UDP header on.
    #[inline(always)]
    fn udp<T: Copy, const AT: usize>(self) -> T {
        const { assert!(AT + size_of::<T>() <= MORE) };
        self.read(L2 + L3 + AT)
    }

    #[inline(always)]
    fn set_link<T: Copy, const AT: usize>(self, value: T) {
        const { assert!(AT + size_of::<T>() <= L2) };
        self.write(AT, value);
    }

    #[inline(always)]
    fn set_ip<T: Copy, const AT: usize>(self, value: T) {
        const { assert!(AT + size_of::<T>() <= L3) };
        self.write(L2 + AT, value);
    }

    #[inline(always)]
    fn set_udp<T: Copy, const AT: usize>(self, value: T) {
        const { assert!(AT + size_of::<T>() <= MORE) };
        self.write(L2 + L3 + AT, value);
    }

    /// The EtherType before the IP header.
    #[inline(always)]
    pub fn ethertype(self) -> u16 {
        const { assert!(L2 >= ETHERNET_LEN) };
        self.read::<Be16>(L2 - 2).value()
    }

    /// IP version and the half byte after it.
    #[inline(always)]
    pub fn version(self) -> (u8, u8) {
        let byte = self.ip::<u8, 0>();
        (byte >> 4, byte & 0x0f)
    }

    /// IPv4's flags and fragment offset.
    #[inline(always)]
    pub fn fragment(self) -> u16 {
        self.ip::<Be16, 6>().value()
    }

    /// Protocol, or IPv6's next header.
    #[inline(always)]
    pub fn protocol(self) -> u8 {
        if L3 == IPV4_LEN { self.ip::<u8, 9>() } else { self.ip::<u8, 6>() }
    }

    /// Length of the IP packet, its header included, as it says.
    #[inline(always)]
    pub fn ip_length(self) -> usize {
        if L3 == IPV4_LEN {
            usize::from(self.ip::<Be16, 2>().value())
        } else {
            usize::from(self.ip::<Be16, 4>().value()) + IPV6_LEN
        }
    }

    #[inline(always)]
    fn traffic_class(self) -> u8 {
        let word = self.ip::<Be16, 0>().value();
        if L3 == IPV4_LEN { word as u8 } else { (word >> 4) as u8 }
    }

    #[inline(always)]
    pub fn ttl(self) -> u8 {
        if L3 == IPV4_LEN { self.ip::<u8, 8>() } else { self.ip::<u8, 7>() }
    }

    /// IPv6's addresses lie beyond what `ip` would let pass in the code for IPv4.
    #[inline(always)]
    pub fn source(self) -> Address {
        if L3 == IPV4_LEN {
            Address::from_v4(self.ip::<Be32, 12>())
        } else {
            Address::from_words(self.read::<[Be32; 4]>(L2 + 8))
        }
    }

    #[inline(always)]
    pub fn destination(self) -> Address {
        if L3 == IPV4_LEN {
            Address::from_v4(self.ip::<Be32, 16>())
        } else {
            Address::from_words(self.read::<[Be32; 4]>(L2 + L3 - 16))
        }
    }
}

/// With a whole UDP header.
impl<const L2: usize, const L3: usize, const MORE: usize> Checked<L2, L3, MORE> {
    #[inline(always)]
    pub fn source_port(self) -> Be16 {
        self.udp::<Be16, 0>()
    }

    #[inline(always)]
    pub fn destination_port(self) -> Be16 {
        self.udp::<Be16, 2>()
    }

    #[inline(always)]
    pub fn udp_length(self) -> u16 {
        self.udp::<Be16, 4>().value()
    }

    #[inline(always)]
    pub fn headers(self) -> Headers {
        Headers {
            udp_length: self.udp_length(),
            traffic_class: self.traffic_class(),
            ttl: self.ttl(),
            label: if L3 == IPV4_LEN { self.ip::<Be32, 4>() } else { self.ip::<Be32, 0>() },
            ip_checksum: if L3 == IPV4_LEN { self.ip::<Be16, 10>() } else { Be16::default() },
            source: self.source(),
            destination: self.destination(),
            source_port: self.source_port(),
            destination_port: self.destination_port(),
            udp_checksum: self.udp::<Be16, 6>(),
        }
    }

    /// The first four bytes of UDP's payload, read little-endian as WireGuard does.
    #[inline(always)]
    pub fn message_type(self) -> u32 {
        self.udp::<u32, UDP_LEN>()
    }

    /// The four bytes after those: WireGuard's receiver index, STUN's cookie.
    #[inline(always)]
    pub fn receiver_index(self) -> Be32 {
        self.udp::<Be32, { UDP_LEN + 4 }>()
    }

    /// STUN's transaction.
    #[inline(always)]
    pub fn transaction(self) -> [Be32; 3] {
        self.udp::<[Be32; 3], { UDP_LEN + 8 }>()
    }

    /// Message type and length of STUN.
    #[inline(always)]
    pub fn stun_type(self) -> (Be16, u16) {
        (self.udp::<Be16, UDP_LEN>(), self.udp::<Be16, { UDP_LEN + 2 }>().value())
    }

    /// Rewrites the headers in place; they stay as long as they are.
    #[inline(always)]
    pub fn rewrite(self, edits: &Edits, flow: &FlowValue, hop: &NextHop) {
        self.set_link::<[Be32; 3], 0>(hop.macs);
        if L2 == TAGGED_LEN {
            let priority = self.read::<Be16>(L2 - 4).value() & PRIORITY;
            self.write(L2 - 4, Be16::new(priority | hop.vlan));
        }
        if L3 == IPV4_LEN {
            self.set_ip::<u8, 8>(edits.ttl);
            self.set_ip::<Be16, 10>(edits.ip_checksum);
        } else {
            self.set_ip::<u8, 7>(edits.ttl);
        }
        self.set_addresses(&hop.source, &flow.destination);
        self.set_udp::<Be16, 0>(flow.source_port);
        self.set_udp::<Be16, 2>(flow.destination_port);
        self.set_udp::<Be16, 6>(edits.udp_checksum);
    }

    #[inline(always)]
    fn set_addresses(self, source: &Address, destination: &Address) {
        if L3 == IPV4_LEN {
            self.set_ip::<Be32, 12>(source.v4_word());
            self.set_ip::<Be32, 16>(destination.v4_word());
        } else {
            self.write(L2 + 8, source.words());
            self.write(L2 + L3 - 16, destination.words());
        }
    }

    /// Puts new headers in front of a payload that stays where it is.
    #[inline(always)]
    pub fn write_headers(self, headers: &NewHeaders, macs: [Be32; 3]) {
        self.set_link::<[Be32; 3], 0>(macs);
        if L2 == TAGGED_LEN {
            self.write(ETHERTYPE, TAG);
            self.write(ETHERTYPE + 2, Be16::new(headers.tag));
        }
        self.write(L2 - 2, Be16::new(ethertype_of(L3)));
        self.write_ip(headers);
        self.set_udp::<Be16, 0>(headers.source_port);
        self.set_udp::<Be16, 2>(headers.destination_port);
        self.set_udp::<Be16, 6>(headers.udp_checksum);
    }

    #[inline(always)]
    fn write_ip(self, headers: &NewHeaders) {
        let NewHeaders { traffic_class, label, udp_length, ttl, source, destination, .. } = *headers;
        if L3 == IPV4_LEN {
            let words = (source.v4_word(), destination.v4_word());
            self.write(L2, forward::ipv4_header(traffic_class, udp_length, label, ttl, words.0, words.1));
        } else {
            self.write(L2, forward::ipv6_header(label, udp_length, ttl));
            self.set_addresses(&source, &destination);
        }
    }

    /// Sends a frame back to where it came from.
    #[inline(always)]
    pub fn swap_macs(self) {
        let [a, b, c] = self.link::<[Be32; 3], 0>();
        let ([d0, d1, d2, d3], [d4, d5, s0, s1], [s2, s3, s4, s5]) = (a.octets(), b.octets(), c.octets());
        let macs = [[s0, s1, s2, s3], [s4, s5, d0, d1], [d2, d3, d4, d5]].map(Be32::from_octets);
        self.set_link::<[Be32; 3], 0>(macs);
    }

    /// Writes IP and UDP headers of a payload that has another length than before.
    #[inline(always)]
    pub fn write_all_headers(self, headers: &NewHeaders) {
        self.write_ip(headers);
        self.set_udp::<Be16, 0>(headers.source_port);
        self.set_udp::<Be16, 2>(headers.destination_port);
        self.set_udp::<Be16, 4>(Be16::new(headers.udp_length));
        self.set_udp::<Be16, 6>(headers.udp_checksum);
    }

    /// Writes the payload's word of that number, if it is known to be there.
    #[inline(always)]
    pub fn set_word(self, number: usize, word: Be32) {
        if UDP_LEN + number * 4 + 4 <= MORE {
            self.write(L2 + L3 + UDP_LEN + number * 4, word);
        }
    }

    /// VLAN priority of a tagged frame.
    #[inline(always)]
    pub fn priority(self) -> u16 {
        if L2 == TAGGED_LEN { self.read::<Be16>(L2 - 4).value() & PRIORITY } else { 0 }
    }
}

/// Headers that are written as a whole.
pub struct NewHeaders {
    /// IPv4's; IPv6's is in `label`.
    pub traffic_class: u8,
    /// As in `lanrage_common::forward::Headers`.
    pub label: Be32,
    pub ttl: u8,
    pub udp_length: u16,
    pub source: Address,
    pub destination: Address,
    pub source_port: Be16,
    pub destination_port: Be16,
    pub udp_checksum: Be16,
    /// Content of the VLAN tag, when there is one.
    pub tag: u16,
}

/// The layout that the lengths of two headers stand for.
pub const fn layout(l2: usize, l3: usize) -> Layout {
    let family = if l3 == IPV4_LEN { Family::V4 } else { Family::V6 };
    Layout { tagged: l2 == TAGGED_LEN, family }
}

const fn ethertype_of(l3: usize) -> u16 {
    use lanrage_common::wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};
    if l3 == IPV4_LEN { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 }
}
