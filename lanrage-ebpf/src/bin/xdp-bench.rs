//! What benchmarks need in the kernel: a packet source, a counting sink, a frame made fresh in front of the program under
//! test (test runs hand the last run's frame to the next one), and flow tables to compare.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("xdp-bench holds kernel programs: build them with `cargo xtask build-ebpf`");
}

#[cfg(target_arch = "bpf")]
#[path = "../bench/bucket.rs"]
mod bucket;
#[cfg(target_arch = "bpf")]
#[path = "../bench/job.rs"]
mod job;

#[cfg(target_arch = "bpf")]
mod program {
    use super::{bucket, job};
    use aya_ebpf::{
        bindings::xdp_action,
        helpers::{bpf_get_prandom_u32, bpf_get_smp_processor_id},
        macros::{map, xdp},
        maps::{Array, HashMap, PerCpuArray, ProgramArray},
        programs::XdpContext,
    };
    use lanrage_common::wire::{Be16, Be32, ChecksumDelta};

    const PROTOCOL: usize = 23;
    const IPV4_CHECKSUM: usize = 24;
    const SOURCE: usize = 26;
    const SOURCE_PORT: usize = 34;
    const DESTINATION_PORT: usize = 36;
    const UDP_CHECKSUM: usize = 40;
    /// The table to compare starts its lines at a page, so that each is one cache line.
    const MMAPABLE: u32 = 1024;

    /// What to do, see `job`.
    #[map]
    static JOB: Array<[u64; job::WORDS]> = Array::with_max_entries(1, 0);

    /// The program under test.
    #[map]
    static NEXT: ProgramArray = ProgramArray::with_max_entries(1, 0);

    /// Frames that arrived, and lookups that failed.
    #[map]
    static SUNK: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

    /// State of each core's random numbers: the kernel's own take as long as a relayed packet's whole lookup.
    #[map]
    static RANDOM: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

    /// The kernel's hash.
    #[map]
    static PLAIN: HashMap<bucket::Key, bucket::Value> = HashMap::with_max_entries(1, 0);

    /// See `bucket`.
    #[map]
    static LINES: Array<bucket::Line> = Array::with_max_entries(4, MMAPABLE);

    /// Number of buckets less one, and seed.
    #[map]
    static SHAPE: Array<[u64; 2]> = Array::with_max_entries(1, 0);

    /// Back by where the frame is said to have come in: live frames take that for a redirect.
    #[xdp]
    fn generate(context: XdpContext) -> u32 {
        match write_frame(&context) {
            Some(()) => xdp_action::XDP_TX,
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
        if !counts(&context) {
            return xdp_action::XDP_PASS;
        }
        count();
        xdp_action::XDP_DROP
    }

    #[inline(always)]
    fn count() {
        if let Some(count) = SUNK.get_ptr_mut(0) {
            // SAFETY: this CPU's own entry.
            unsafe { *count += 1 };
        }
    }

    #[inline(always)]
    fn counts(context: &XdpContext) -> bool {
        let frame = context.data();
        if frame + DESTINATION_PORT + 2 > context.data_end() {
            return false;
        }
        let Some(job) = JOB.get(0) else { return false };
        // SAFETY: in bounds, checked above.
        let (protocol, port) =
            unsafe { (*((frame + PROTOCOL) as *const u8), *((frame + DESTINATION_PORT) as *const u16)) };
        let past = u64::from(u16::from_be(port)).wrapping_sub(job[job::SINK_PORT]);
        protocol == 17 && past < job[job::SINK_PORTS]
    }

    /// Writes a frame of a random flow.
    #[inline(always)]
    fn write_frame(context: &XdpContext) -> Option<()> {
        let frame = context.data();
        if frame + job::TEMPLATE * 8 > context.data_end() {
            return None;
        }
        let job = JOB.get(0)?;
        for at in 0..job::TEMPLATE {
            // SAFETY: in bounds, checked above. Volatile, or it becomes a loop over bytes, which costs more than all else.
            unsafe { ((frame + at * 8) as *mut u64).write_volatile(job[at]) };
        }
        if job[job::FLOWS] > 1 { choose_flow(frame, context.data_end(), job) } else { Some(()) }
    }

    /// Makes the frame a random flow's: source address, source port and receiver index.
    #[inline(always)]
    fn choose_flow(frame: usize, end: usize, job: &[u64; job::WORDS]) -> Option<()> {
        let share = job[job::SHARE];
        let mut flow = ((random()? >> 32) * share >> 32) as u32;
        if share < job[job::FLOWS] {
            // SAFETY: a helper without arguments.
            flow += unsafe { bpf_get_smp_processor_id() } * share as u32;
        }
        let was = (numbers(job, 0), numbers(job, flow));
        let ((old_address, old_port, old_index), (address, port, index)) = was;
        let in_both = ChecksumDelta::new().replace32(old_address, address);
        let in_udp = in_both.replace16(old_port, port);
        let index_at = job[job::INDEX_AT] as usize & 0x3f;
        let in_udp = if index_at == 0 {
            in_udp
        } else {
            if frame + index_at + 4 > end {
                return None;
            }
            // SAFETY: in bounds, checked above.
            unsafe { *((frame + index_at) as *mut Be32) = index };
            in_udp.replace32(old_index, index)
        };
        // SAFETY: in bounds, checked by the caller.
        unsafe {
            *((frame + SOURCE) as *mut Be32) = address;
            *((frame + SOURCE_PORT) as *mut Be16) = port;
            let checksum = (frame + IPV4_CHECKSUM) as *mut Be16;
            *checksum = in_both.apply(*checksum);
            let checksum = (frame + UDP_CHECKSUM) as *mut Be16;
            *checksum = in_udp.apply_udp(*checksum);
        }
        Some(())
    }

    /// A flow's source address, source port and receiver index.
    #[inline(always)]
    fn numbers(job: &[u64; job::WORDS], flow: u32) -> (Be32, Be16, Be32) {
        let address = (job[job::FIRST_ADDRESS] as u32).wrapping_add(flow / job::PORTS);
        let port = (job[job::FIRST_PORT] as u16).wrapping_add((flow % job::PORTS) as u16);
        let index =
            (job[job::FIRST_INDEX] as u32).wrapping_add(flow.wrapping_mul(job[job::INDEX_STRIDE] as u32));
        (Be32::from_octets(address.to_be_bytes()), Be16::new(port), Be32::from_octets(index.to_le_bytes()))
    }

    #[inline(always)]
    fn random() -> Option<u64> {
        let state = RANDOM.get_ptr_mut(0)?;
        // SAFETY: this CPU's own entry, and a helper without arguments.
        unsafe {
            if *state == 0 {
                *state = u64::from(bpf_get_prandom_u32()) << 1 | 1;
            }
            *state = (*state).wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            Some(*state)
        }
    }

    /// A random flow's key, and how to read what a lookup gives: all of it, as forwarding does.
    #[inline(always)]
    fn random_key() -> Option<bucket::Key> {
        let job = JOB.get(0)?;
        Some(bucket::flow_key(((random()? >> 32) * job[job::FLOWS] >> 32) as u32))
    }

    #[inline(always)]
    fn verdict(value: Option<bucket::Value>) -> u32 {
        let Some([a, b, c, d]) = value else {
            count();
            return xdp_action::XDP_ABORTED;
        };
        if a ^ b ^ c ^ d == 0 { xdp_action::XDP_DROP } else { xdp_action::XDP_PASS }
    }

    /// A key and no lookup: what the others cost without their table.
    #[xdp]
    fn lookup_none(_: XdpContext) -> u32 {
        verdict(random_key().map(|[a, b, c]| [a, b, c, 1]))
    }

    #[xdp]
    fn lookup_plain(_: XdpContext) -> u32 {
        let Some(key) = random_key() else { return xdp_action::XDP_ABORTED };
        // SAFETY: nobody changes the table while it is measured.
        verdict(unsafe { PLAIN.get(&key) }.copied())
    }

    #[xdp]
    fn lookup_buckets(_: XdpContext) -> u32 {
        let (Some(key), Some([mask, seed])) = (random_key(), SHAPE.get(0).copied()) else {
            return xdp_action::XDP_ABORTED;
        };
        let hash = bucket::hash(&key, seed);
        let [a, b, c, d] = bucket::places(hash, mask as u32);
        let found = find(a, hash, &key)
            .or_else(|| find(b, hash, &key))
            .or_else(|| find(c, hash, &key))
            .or_else(|| find(d, hash, &key));
        verdict(found)
    }

    /// The line that a perfect table would know without looking, by the flow's number in its key: no layout can be faster.
    #[xdp]
    fn lookup_direct(_: XdpContext) -> u32 {
        let Some(key) = random_key() else { return xdp_action::XDP_ABORTED };
        verdict(LINES.get(key[2] as u32).map(|[_, _, _, _, a, b, c, d]| [*a, *b, *c, *d | 1]))
    }

    #[inline(always)]
    fn find(place: u32, hash: u64, key: &bucket::Key) -> Option<bucket::Value> {
        let line = LINES.get(place)?;
        if line[1] != key[0] || line[2] != key[1] || line[3] != key[2] {
            return None;
        }
        // SAFETY: in the entry. Each word is read once, because the seal must be about what is used.
        let word = |at: usize| unsafe { line.as_ptr().add(at).read_volatile() };
        let value = [word(4), word(5), word(6), word(7)];
        (word(0) == bucket::seal(hash, &value)).then_some(value)
    }

    /// The kernel gives some functions only to programs under the GPL.
    #[unsafe(no_mangle)]
    #[unsafe(link_section = "license")]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo) -> ! {
        loop {}
    }
}
