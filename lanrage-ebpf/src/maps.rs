//! The maps. Sizes are what the daemon chose at load; it alone writes all but counters and buckets.

use aya_ebpf::{
    helpers::bpf_ktime_get_coarse_ns,
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf},
};
use core::ptr;
use lanrage_common::maps::{
    Counter, Credit, DEFAULT_FLOWS, DEFAULT_MEMBERS, DEFAULT_NEXT_HOPS, EVENTS_BYTES, Event, FlowKey,
    FlowValue, Global, Local, MemberCounter, MemberState, NextHop, Record, SourceKey,
};
use lanrage_common::reason::Reason;

/// A plain hash: a full one refuses new flows, where an LRU would throw out live ones.
#[map]
static FLOWS: HashMap<FlowKey, FlowValue> = HashMap::with_max_entries(DEFAULT_FLOWS, 0);

#[map]
static NEXT_HOPS: Array<NextHop> = Array::with_max_entries(DEFAULT_NEXT_HOPS, 0);

#[map]
static LOCAL: Array<Local> = Array::with_max_entries(1, 0);

#[map]
static MEMBERS: Array<MemberState> = Array::with_max_entries(DEFAULT_MEMBERS, 0);

#[map]
static SOURCES: HashMap<SourceKey, u32> = HashMap::with_max_entries(DEFAULT_MEMBERS, 0);

#[map]
static REASONS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(Reason::COUNT as u32, 0);

#[map]
static COUNTERS: PerCpuArray<MemberCounter> = PerCpuArray::with_max_entries(DEFAULT_MEMBERS, 0);

#[map]
static GLOBAL: Array<Global> = Array::with_max_entries(1, 0);

#[map]
static CREDIT: PerCpuArray<Credit> = PerCpuArray::with_max_entries(1, 0);

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(EVENTS_BYTES, 0);

/// Never read here: it shares the life of the other maps.
#[map]
#[used]
static RECORDS: Array<Record> = Array::with_max_entries(DEFAULT_MEMBERS, 0);

/// Set by tests before loading; the verifier removes what it rules out.
#[unsafe(no_mangle)]
static TEST_CLOCK: u8 = 0;

/// The relay's own addresses, ports and limits.
#[inline(always)]
pub fn local() -> Option<&'static Local> {
    LOCAL.get(0)
}

/// Nanoseconds of CLOCK_MONOTONIC, as of the last tick.
#[inline(always)]
pub fn now(local: &Local) -> u64 {
    // SAFETY: a read of a constant that only the loader changes; volatile, so that the compiler does not take it as it is.
    if unsafe { ptr::read_volatile(&raw const TEST_CLOCK) } != 0 {
        return local.clock;
    }
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// A flow's value. To be copied at once: the kernel may reuse a removed entry at any time. The worst that a removal in
/// between can do is one packet that goes to another member, who cannot decrypt it.
#[inline(always)]
pub fn flow(key: &FlowKey) -> Option<&'static FlowValue> {
    // SAFETY: entries are integers of preallocated memory that lives as long as the map.
    FLOWS.get_ptr(key).map(|value| unsafe { &*value })
}

/// A next hop.
#[inline(always)]
pub fn next_hop(slot: u32) -> Option<&'static NextHop> {
    NEXT_HOPS.get(slot)
}

/// The slot of the member that is bound there.
#[inline(always)]
pub fn bound(source: &SourceKey) -> Option<u32> {
    // SAFETY: as for `flow`.
    unsafe { SOURCES.get(source) }.copied()
}

/// A member's buckets.
#[inline(always)]
pub fn member(slot: u32) -> Option<&'static mut MemberState> {
    // SAFETY: the entry lives as long as the program. Two CPUs may use it at once, when a NAT changes a member's port in
    // mid-flight: both then take from what the bucket held before, which gives the member a packet too many.
    MEMBERS.get_ptr_mut(slot).map(|member| unsafe { &mut *member })
}

/// The global budget.
#[inline(always)]
pub fn global() -> Option<&'static mut Global> {
    // SAFETY: as for `member`; two CPUs that ask in the same moment share one chunk's price.
    GLOBAL.get_ptr_mut(0).map(|global| unsafe { &mut *global })
}

/// This CPU's share of the common budgets.
#[inline(always)]
pub fn credit() -> Option<&'static mut Credit> {
    // SAFETY: this CPU's own entry, and XDP programs do not preempt each other on one CPU.
    CREDIT.get_ptr_mut(0).map(|credit| unsafe { &mut *credit })
}

/// Counts a frame under its reason; gives how many there are now on this CPU.
#[inline(always)]
pub fn count_reason(reason: Reason, bytes: u64) -> u64 {
    let Some(counter) = REASONS.get_ptr_mut(reason.index()) else { return 0 };
    // SAFETY: as for `credit`.
    unsafe {
        (*counter).packets += 1;
        (*counter).bytes += bytes;
        (*counter).packets
    }
}

/// Counts a forwarded frame for the sending member.
#[inline(always)]
pub fn count_member(slot: u32, bytes: u64) {
    if let Some(counter) = COUNTERS.get_ptr_mut(slot) {
        // SAFETY: as for `credit`.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += bytes;
        }
    }
}

/// Counts a frame that a member had no budget for.
#[inline(always)]
pub fn count_dropped(slot: u32) {
    if let Some(counter) = COUNTERS.get_ptr_mut(slot) {
        // SAFETY: as for `credit`.
        unsafe { (*counter).dropped += 1 };
    }
}

/// Tells an event, if there is room.
#[inline(always)]
pub fn tell(event: Event) {
    if let Some(mut entry) = EVENTS.reserve::<Event>(0) {
        entry.write(event);
        entry.submit(0);
    }
}
