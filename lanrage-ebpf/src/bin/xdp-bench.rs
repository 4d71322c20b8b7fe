//! What benchmarks need in the kernel: a packet source, a counting sink, and a frame made fresh in front of the program
//! under test, because test runs hand the last run's frame to the next one.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("xdp-bench holds kernel programs: build them with `cargo xtask build-ebpf`");
}

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::{
        bindings::xdp_action,
        helpers::{bpf_get_prandom_u32, bpf_redirect},
        macros::{map, xdp},
        maps::{Array, PerCpuArray, ProgramArray},
        programs::XdpContext,
    };
    use core::ptr;
    use lanrage_common::wire::{Be16, Be32, ChecksumDelta};

    /// Ethernet, IPv4, UDP, WireGuard's type and receiver index, and two bytes more.
    const WORDS: usize = 13;
    const UDP_CHECKSUM: usize = 40;
    const INDEX: usize = 46;
    const PROTOCOL: usize = 23;
    const PORT: usize = 36;

    /// The frame's beginning, for receiver index 0.
    #[map]
    static TEMPLATE: Array<[u32; WORDS]> = Array::with_max_entries(1, 0);

    /// Egress interface, number of flows, the UDP port that the sink counts as it lies in the packet, and the first flow's
    /// receiver index.
    #[map]
    static SETTINGS: Array<[u32; 4]> = Array::with_max_entries(1, 0);

    /// The program under test.
    #[map]
    static NEXT: ProgramArray = ProgramArray::with_max_entries(1, 0);

    /// Frames that arrived.
    #[map]
    static SUNK: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

    #[xdp]
    fn generate(context: XdpContext) -> u32 {
        match write_frame(&context) {
            // SAFETY: a helper without memory arguments.
            Some(egress) => unsafe { bpf_redirect(egress, 0) as u32 },
            None => xdp_action::XDP_ABORTED,
        }
    }

    #[xdp]
    fn prepare(context: XdpContext) -> u32 {
        if write_frame(&context).is_some() {
            // SAFETY: the slot holds an XDP program or nothing.
            let _ = unsafe { NEXT.tail_call(&context, 0) };
        }
        xdp_action::XDP_ABORTED
    }

    #[xdp]
    fn empty(_: XdpContext) -> u32 {
        xdp_action::XDP_PASS
    }

    #[xdp]
    fn sink(context: XdpContext) -> u32 {
        if counts(&context)
            && let Some(count) = SUNK.get_ptr_mut(0)
        {
            // SAFETY: this CPU's own entry.
            unsafe { *count += 1 };
        }
        xdp_action::XDP_DROP
    }

    #[inline(always)]
    fn counts(context: &XdpContext) -> bool {
        let frame = context.data();
        if frame + PORT + 2 > context.data_end() {
            return false;
        }
        let Some(settings) = SETTINGS.get(0) else { return false };
        // SAFETY: in bounds, checked above.
        let (protocol, port) = unsafe {
            (*((frame + PROTOCOL) as *const u8), ptr::read_unaligned((frame + PORT) as *const u16))
        };
        protocol == 17 && u32::from(port) == settings[2]
    }

    /// Writes a frame of a random flow; gives the egress interface.
    #[inline(always)]
    fn write_frame(context: &XdpContext) -> Option<u32> {
        let frame = context.data();
        if frame + WORDS * 4 > context.data_end() {
            return None;
        }
        let (template, settings) = (TEMPLATE.get(0)?, SETTINGS.get(0)?);
        // SAFETY: in bounds, checked above; integers only.
        unsafe {
            ptr::write_unaligned(frame as *mut [u32; WORDS], *template);
            // SAFETY: a helper without arguments.
            let flow = (u64::from(bpf_get_prandom_u32()) * u64::from(settings[1])) >> 32;
            let index = Be32::from_octets((flow as u32).wrapping_add(settings[3]).to_le_bytes());
            ptr::write_unaligned((frame + INDEX) as *mut Be32, index);
            let checksum = (frame + UDP_CHECKSUM) as *mut Be16;
            let delta = ChecksumDelta::new().replace32(Be32::default(), index);
            ptr::write_unaligned(checksum, delta.apply_udp(ptr::read_unaligned(checksum)));
        }
        Some(settings[0])
    }

    /// The kernel gives some functions only to programs under the GPL.
    #[unsafe(no_mangle)]
    #[unsafe(link_section = "license")]
    static LICENSE: [u8; 4] = *b"GPL\0";

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo) -> ! {
        loop {}
    }
}
