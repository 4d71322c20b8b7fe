//! The maps. The daemon alone writes all but the counters; sizes are what it chose at load.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, PerCpuArray},
};
use lanrage_common::maps::{
    Counter, DEFAULT_FLOWS, DEFAULT_MEMBERS, DEFAULT_NEXT_HOPS, FlowKey, FlowValue, Local, NextHop,
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
static REASONS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(Reason::COUNT as u32, 0);

#[map]
static MEMBERS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(DEFAULT_MEMBERS, 0);

/// The relay's own addresses and ports.
#[inline(always)]
pub fn local() -> Option<&'static Local> {
    LOCAL.get(0)
}

/// A flow's value, copied out at once: the kernel may reuse a removed entry at any time.
#[inline(always)]
pub fn flow(key: &FlowKey) -> Option<FlowValue> {
    // SAFETY: the value is copied before anything else happens; the worst a concurrent removal can do is one packet that
    // goes to another member, who cannot decrypt it.
    unsafe { FLOWS.get(key) }.copied()
}

/// A next hop.
#[inline(always)]
pub fn next_hop(slot: u32) -> Option<&'static NextHop> {
    NEXT_HOPS.get(slot)
}

/// Counts a frame under its reason.
#[inline(always)]
pub fn count_reason(reason: Reason, bytes: u64) {
    add(&REASONS, reason.index(), bytes);
}

/// Counts a forwarded frame for the sending member.
#[inline(always)]
pub fn count_member(slot: u32, bytes: u64) {
    add(&MEMBERS, slot, bytes);
}

#[inline(always)]
fn add(counters: &PerCpuArray<Counter>, index: u32, bytes: u64) {
    if let Some(counter) = counters.get_ptr_mut(index) {
        // SAFETY: the entry is this CPU's own, and XDP programs do not preempt each other on one CPU.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += bytes;
        }
    }
}
