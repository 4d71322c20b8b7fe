//! The maps. The daemon alone writes what the programs are told; they write counters, rates and what they remember.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray};
use core::ptr;
use lanrage_common::lane::maps::{
    AnswerKey, ContentKey, ContentTimes, JoinKey, LaneLocal, MAX_ALIASES, MAX_ANSWERS, MAX_CONTENTS,
    MAX_JOINED, MAX_MEMBERS, MAX_RATES, MAX_SEARCHES, MAX_SEEN, MAX_TRACED, MemberCopies, PacketKey, RateKey,
    SearchKey, Step, TraceCount, TraceKey, WINDOW,
};
use lanrage_common::lane::{LaneReason, RATE, SEARCH_RATE};
use lanrage_common::police::Rate;
use lanrage_common::wire::{Address, Be32};

#[map]
static LANE_LOCAL: Array<LaneLocal> = Array::with_max_entries(1, 0);

#[map]
static LANE_MEMBERS: Array<Be32> = Array::with_max_entries(MAX_MEMBERS, 0);

#[map]
static LANE_SLOTS: HashMap<Be32, u32> = HashMap::with_max_entries(MAX_MEMBERS, 0);

#[map]
static LANE_ALIASES: HashMap<Be32, u32> = HashMap::with_max_entries(MAX_ALIASES, 0);

#[map]
static LANE_COPIES: PerCpuArray<MemberCopies> = PerCpuArray::with_max_entries(MAX_MEMBERS, 0);

#[map]
static LANE_REASONS: PerCpuArray<u64> = PerCpuArray::with_max_entries(LaneReason::COUNT as u32, 0);

#[map]
static LANE_STEPS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Step::COUNT as u32, 0);

#[map]
static LANE_RATES: LruHashMap<RateKey, u64> = LruHashMap::with_max_entries(MAX_RATES, 0);

#[map]
static LANE_JOINED: HashMap<JoinKey, u8> = HashMap::with_max_entries(MAX_JOINED, 0);

#[map]
static LANE_SEARCHES: LruHashMap<SearchKey, u64> = LruHashMap::with_max_entries(MAX_SEARCHES, 0);

#[map]
static LANE_SEEN: LruHashMap<PacketKey, u64> = LruHashMap::with_max_entries(MAX_SEEN, 0);

#[map]
static LANE_CONTENTS: LruHashMap<ContentKey, ContentTimes> = LruHashMap::with_max_entries(MAX_CONTENTS, 0);

#[map]
static LANE_TRACE: HashMap<TraceKey, TraceCount> = HashMap::with_max_entries(MAX_TRACED, 0);

#[map]
static LANE_ASKED: LruHashMap<u32, u64> = LruHashMap::with_max_entries(MAX_ANSWERS, 0);

#[map]
static LANE_ANSWERS: LruHashMap<AnswerKey, u64> = LruHashMap::with_max_entries(MAX_ANSWERS, 0);

/// Length of the header before IP, set before loading: none on the party's interface, Ethernet's in test runs.
#[unsafe(no_mangle)]
static LINK_LEN: u32 = 0;

/// Where IP begins.
#[inline(always)]
pub fn link_len() -> u32 {
    // SAFETY: a read of a constant that only the loader changes; volatile, so that the compiler does not take it as it is.
    unsafe { ptr::read_volatile(&raw const LINK_LEN) }
}

/// What the daemon told; nothing while the lane is off.
#[inline(always)]
pub fn local() -> Option<&'static LaneLocal> {
    LANE_LOCAL.get(0).filter(|local| !local.address.is_zero())
}

/// The overlay address of the member in a slot.
#[inline(always)]
pub fn member(slot: u32) -> Option<Be32> {
    LANE_MEMBERS.get(slot).copied()
}

/// Whether a member has that address on the gateway's home network.
#[inline(always)]
pub fn is_alias(address: Be32) -> bool {
    // SAFETY: only whether there is an entry counts.
    unsafe { LANE_ALIASES.get(address) }.is_some()
}

/// The slot of the member with that overlay address.
#[inline(always)]
pub fn slot_of(member: Be32) -> Option<u32> {
    // SAFETY: an integer, copied at once; the daemon may replace it meanwhile, which sends one packet to another member.
    unsafe { LANE_SLOTS.get(member) }.copied()
}

/// Counts a packet that was dropped.
#[inline(always)]
pub fn count_reason(reason: LaneReason) {
    if let Some(counter) = LANE_REASONS.get_ptr_mut(reason.index()) {
        // SAFETY: this CPU's own entry. A packet that interrupts another one's program can lose one of two counts.
        unsafe { *counter += 1 };
    }
}

/// Counts a packet that has come so far.
#[inline(always)]
pub fn count(step: Step) {
    if let Some(counter) = LANE_STEPS.get_ptr_mut(step.index()) {
        // SAFETY: as above.
        unsafe { *counter += 1 };
    }
}

/// What this CPU has counted.
#[inline(always)]
pub fn counted(step: Step) -> u64 {
    // SAFETY: this CPU's own entry, which no other program changes while this one runs.
    LANE_STEPS.get_ptr(step.index()).map_or(0, |counter| unsafe { *counter })
}

/// Counts a member's copy.
#[inline(always)]
pub fn count_copy(slot: u32, sent: bool) {
    if let Some(counter) = LANE_COPIES.get_ptr_mut(slot) {
        // SAFETY: as above.
        unsafe {
            if sent {
                (*counter).sent += 1;
            } else {
                (*counter).failed += 1;
            }
        }
    }
}

/// Whether one more packet may pass.
#[inline(always)]
pub fn is_within_rate(source: Be32, port: u16) -> bool {
    take(&LANE_RATES, &RateKey { source, port: u32::from(port) }, RATE)
}

/// Whether one more packet to a group goes to everybody.
#[inline(always)]
pub fn is_search(group: Address, port: u16) -> bool {
    take(&LANE_SEARCHES, &SearchKey { group, port: u64::from(port) }, SEARCH_RATE)
}

/// Whether a member has said what it has joined, and the group is not among it.
#[inline(always)]
pub fn is_unwanted(group: Address, member: Be32) -> bool {
    // SAFETY: only whether there is an entry counts.
    let has = |group| unsafe { LANE_JOINED.get(JoinKey { group, member, unused: 0 }) }.is_some();
    has(Address::from_words([Be32::from_octets([0; 4]); 4])) && !has(group)
}

#[inline(always)]
fn take<K>(buckets: &LruHashMap<K, u64>, key: &K, rate: Rate) -> bool {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let full_at = buckets.get_ptr_mut(key);
    // SAFETY: an integer in memory that lives as long as the map; two CPUs at once let a packet too many pass.
    let before = full_at.map_or(0, |full_at| unsafe { *full_at });
    let Some(after) = rate.take(before, 1, now) else { return false };
    match full_at {
        // SAFETY: as above.
        Some(full_at) => unsafe { *full_at = after },
        // A full table throws out the oldest; a kernel without memory limits nothing.
        None => drop(buckets.insert(key, after, 0)),
    }
    true
}

/// Whether the packet was here within the last second; remembers it.
#[inline(always)]
pub fn is_repeated(key: &PacketKey) -> bool {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: an integer, copied at once.
    let last = unsafe { LANE_SEEN.get(key) }.copied();
    if last.is_some_and(|last| now.wrapping_sub(last) < WINDOW) {
        return true;
    }
    let _ = LANE_SEEN.insert(key, now, 0);
    false
}

/// Whether sending that content now would go round.
#[inline(always)]
pub fn is_loop(key: &ContentKey, now: u64) -> bool {
    // SAFETY: plain numbers; two CPUs at once let a packet too many pass, or keep one back that is sent again.
    LANE_CONTENTS.get_ptr(key).is_some_and(|times| unsafe { (*times).is_loop(now) })
}

/// Remembers that this device has sent it, or that it came from a member. A full table throws out the oldest.
#[inline(always)]
pub fn note_content(key: &ContentKey, now: u64, is_sent: bool) {
    let note = |times: &mut ContentTimes| if is_sent { times.note_sent(now) } else { times.note_heard(now) };
    match LANE_CONTENTS.get_ptr_mut(key) {
        // SAFETY: as above, in memory that lives as long as the map.
        Some(times) => note(unsafe { &mut *times }),
        None => {
            let mut times = ContentTimes { sent_since: 0, heard_at: 0, sent: 0, heard: 0 };
            note(&mut times);
            let _ = LANE_CONTENTS.insert(key, times, 0);
        }
    }
}

/// The counts of a conversation that is traced.
#[inline(always)]
pub fn traced(key: &TraceKey) -> Option<*mut TraceCount> {
    LANE_TRACE.get_ptr_mut(key)
}

/// The counts of a conversation that is traced from now on; none when there is no room.
#[inline(always)]
pub fn trace(key: &TraceKey) -> Option<*mut TraceCount> {
    let none = TraceCount { packets: 0, copies: 0, dropped: 0, source_port: 0, reason: 0 };
    // another CPU may have been faster, and then its entry is the one
    let _ = LANE_TRACE.insert(key, none, u64::from(BPF_NOEXIST));
    LANE_TRACE.get_ptr_mut(key)
}

/// Remembers when a port asked. A full table throws out the oldest.
#[inline(always)]
pub fn ask(port: u32, now: u64) {
    match LANE_ASKED.get_ptr_mut(port) {
        // SAFETY: an integer in memory that lives as long as the map.
        Some(at) => unsafe { *at = now },
        None => drop(LANE_ASKED.insert(port, now, 0)),
    }
}

/// When a port asked.
#[inline(always)]
pub fn asked(port: u32) -> Option<u64> {
    // SAFETY: an integer, copied at once.
    unsafe { LANE_ASKED.get(port) }.copied()
}

/// How many answers came.
#[inline(always)]
pub fn answers(key: &AnswerKey) -> Option<*mut u64> {
    LANE_ANSWERS.get_ptr_mut(key)
}

/// Counts the first answer.
#[inline(always)]
pub fn first_answer(key: &AnswerKey) {
    let _ = LANE_ANSWERS.insert(key, 1, 0);
}
