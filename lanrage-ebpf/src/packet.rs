//! A frame in the driver's memory, by fixed offsets: the only module that touches packet bytes.

use aya_ebpf::programs::XdpContext;
use core::ptr;
use lanrage_common::forward::{Edits, Headers};
use lanrage_common::wire::{Be16, Be32, ETHERNET_LEN, IPV4_LEN};

/// Offsets from the start of the frame.
const ETHERTYPE: usize = 12;
const IP: usize = ETHERNET_LEN;
const UDP: usize = IP + IPV4_LEN;
/// Where UDP's payload begins.
pub const PAYLOAD: usize = UDP + lanrage_common::wire::UDP_LEN;

/// `LEN` bytes that are known to be there, because only [`Frame::begin`] makes one after asking.
///
/// Reads of more than `LEN` bytes do not compile.
#[derive(Clone, Copy)]
pub struct Checked<const LEN: usize>(*mut u8);

/// The whole frame.
pub struct Frame {
    start: usize,
    end: usize,
}

impl Frame {
    /// The frame that a program was called for.
    #[inline(always)]
    pub fn new(context: &XdpContext) -> Self {
        Self { start: context.data(), end: context.data_end() }
    }

    /// Length in bytes.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Its first `LEN` bytes. The comparison has the one form that every verifier follows.
    #[inline(always)]
    pub fn begin<const LEN: usize>(&self) -> Option<Checked<LEN>> {
        if self.start + LEN > self.end { None } else { Some(Checked(self.start as *mut u8)) }
    }
}

impl<const LEN: usize> Checked<LEN> {
    #[inline(always)]
    fn read<T: Copy, const AT: usize>(self) -> T {
        const { assert!(AT + size_of::<T>() <= LEN) };
        // SAFETY: in bounds by the assertion and by how `Checked` is made; only integer types are read here.
        unsafe { ptr::read_unaligned(self.0.add(AT).cast()) }
    }

    #[inline(always)]
    fn write<T: Copy, const AT: usize>(self, value: T) {
        const { assert!(AT + size_of::<T>() <= LEN) };
        // SAFETY: as in `read`.
        unsafe { ptr::write_unaligned(self.0.add(AT).cast(), value) }
    }
}

impl Checked<ETHERNET_LEN> {
    #[inline(always)]
    pub fn ethertype(self) -> u16 {
        self.read::<Be16, ETHERTYPE>().value()
    }
}

impl Checked<{ IP + IPV4_LEN }> {
    /// Version and header length, in words of four bytes.
    #[inline(always)]
    pub fn version_and_words(self) -> (u8, u8) {
        let byte = self.read::<u8, IP>();
        (byte >> 4, byte & 0x0f)
    }

    /// Flags and fragment offset.
    #[inline(always)]
    pub fn fragment(self) -> u16 {
        self.read::<Be16, { IP + 6 }>().value()
    }

    #[inline(always)]
    pub fn protocol(self) -> u8 {
        self.read::<u8, { IP + 9 }>()
    }

    #[inline(always)]
    pub fn destination(self) -> Be32 {
        self.read::<Be32, { IP + 16 }>()
    }
}

impl Checked<PAYLOAD> {
    #[inline(always)]
    pub fn udp_length(self) -> u16 {
        self.read::<Be16, { UDP + 4 }>().value()
    }

    #[inline(always)]
    pub fn headers(self) -> Headers {
        Headers {
            total_length: self.read::<Be16, { IP + 2 }>().value(),
            ttl: self.read::<u8, { IP + 8 }>(),
            protocol: self.read::<u8, { IP + 9 }>(),
            ip_checksum: self.read::<Be16, { IP + 10 }>(),
            source: self.read::<Be32, { IP + 12 }>(),
            destination: self.read::<Be32, { IP + 16 }>(),
            source_port: self.read::<Be16, UDP>(),
            destination_port: self.read::<Be16, { UDP + 2 }>(),
            udp_checksum: self.read::<Be16, { UDP + 6 }>(),
        }
    }

    /// The only writes there are.
    #[inline(always)]
    pub fn apply(self, edits: &Edits) {
        self.write::<[Be32; 3], 0>(edits.macs);
        self.write::<u8, { IP + 8 }>(edits.ttl);
        self.write::<Be16, { IP + 10 }>(edits.ip_checksum);
        self.write::<Be32, { IP + 12 }>(edits.source);
        self.write::<Be32, { IP + 16 }>(edits.destination);
        self.write::<Be16, UDP>(edits.source_port);
        self.write::<Be16, { UDP + 2 }>(edits.destination_port);
        self.write::<Be16, { UDP + 6 }>(edits.udp_checksum);
    }
}

impl Checked<{ PAYLOAD + 4 }> {
    /// The first four bytes of UDP's payload, read little-endian as WireGuard does.
    #[inline(always)]
    pub fn message_type(self) -> u32 {
        self.read::<u32, PAYLOAD>()
    }
}

impl Checked<{ PAYLOAD + 32 }> {
    /// WireGuard's receiver index.
    #[inline(always)]
    pub fn receiver_index(self) -> Be32 {
        self.read::<Be32, { PAYLOAD + 4 }>()
    }
}
