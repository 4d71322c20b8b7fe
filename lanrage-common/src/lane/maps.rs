//! Layouts of the lane's kernel maps, shared by its programs and the daemon that alone fills them.
//!
//! Addresses are in wire order, the rest are numbers of the host. No type has padding.

use super::LaneReason;
use crate::wire::{Address, Be32};

/// Name of the array whose only entry is [`LaneLocal`].
pub const LOCAL: &str = "LANE_LOCAL";
/// Name of the array of member slots → [`Be32`], the member's overlay address.
pub const MEMBERS: &str = "LANE_MEMBERS";
/// Name of the hash map of overlay addresses → slot in [`MEMBERS`].
pub const SLOTS: &str = "LANE_SLOTS";
/// Name of the hash map whose keys are the aliases of members on a gateway's home network.
pub const ALIASES: &str = "LANE_ALIASES";
/// Name of the per-CPU array of member slots → [`MemberCopies`].
pub const COPIES: &str = "LANE_COPIES";
/// Name of the per-CPU array [`LaneReason::index`] → packets.
pub const REASONS: &str = "LANE_REASONS";
/// Name of the per-CPU array [`Step::index`] → packets.
pub const STEPS: &str = "LANE_STEPS";
/// Name of the LRU hash of [`RateKey`] → when its bucket is full again.
pub const RATES: &str = "LANE_RATES";
/// Name of the LRU hash of [`PacketKey`] → when it was seen.
pub const SEEN: &str = "LANE_SEEN";
/// Name of the LRU hash of [`ContentKey`] → [`ContentTimes`].
pub const CONTENTS: &str = "LANE_CONTENTS";
/// Name of the hash of [`TraceKey`] → [`TraceCount`]. A full one traces nothing new; the daemon removes what is idle.
pub const TRACE: &str = "LANE_TRACE";
/// Name of the LRU hash of own ports that packets to everybody came from → when.
pub const ASKED: &str = "LANE_ASKED";
/// Name of the LRU hash of [`AnswerKey`] → packets.
pub const ANSWERS: &str = "LANE_ANSWERS";
/// Name of the hash whose keys are [`JoinKey`]: what members have joined.
pub const JOINED: &str = "LANE_JOINED";
/// Name of the LRU hash of [`SearchKey`] → when its bucket is full again.
pub const SEARCHES: &str = "LANE_SEARCHES";
/// Name of the array in the programs of `lanrage run` whose only entry is [`LaneLocal`].
pub const RUN_LOCAL: &str = "RUN_LOCAL";
/// Name of the read-only global with the length of the header before IP: 0 on the party's interface, 14 in test runs.
pub const LINK_LEN: &str = "LINK_LEN";

/// Members that get copies; at least a party's most.
pub const MAX_MEMBERS: u32 = 256;
/// Aliases of members on a gateway's home network.
pub const MAX_ALIASES: u32 = 256;
/// Sources and ports whose rate is watched.
pub const MAX_RATES: u32 = 8192;
/// Packets that are remembered.
pub const MAX_SEEN: u32 = 4096;
/// Contents of packets to everybody that are remembered.
pub const MAX_CONTENTS: u32 = 4096;
/// Conversations that are traced at once. Civilization VI alone asks 100 ports.
pub const MAX_TRACED: u32 = 256;
/// Groups that one member says it has joined.
pub const MAX_GROUPS: usize = 32;
/// Joins of all members, and one entry for each that has said what it has joined.
pub const MAX_JOINED: u32 = MAX_MEMBERS * (MAX_GROUPS as u32 + 1);
/// Groups and ports whose searches are told from streams.
pub const MAX_SEARCHES: u32 = 1024;
/// Answers that are remembered, and ports that they may come to.
pub const MAX_ANSWERS: u32 = 1024;
/// An answer comes so long after the question, nanoseconds.
pub const ANSWER_TIME: u64 = 5_000_000_000;
/// Physical networks that are known.
pub const MAX_HOMES: usize = 4;
/// Directed broadcast addresses that are known.
pub const MAX_BROADCASTS: usize = 8;
/// A packet counts as repeated for so long, nanoseconds.
pub const WINDOW: u64 = 1_000_000_000;

/// Mark of a copy that the program makes for a physical network; its slot in [`LaneLocal::homes`] is added.
pub const HOME_MARK: u32 = 0x4c52_4800;
/// Mark of a copy that was taken from a physical network, which has the original.
pub const TAKEN_MARK: u32 = 0x4c52_5400;

/// An address of this machine on a physical network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Home {
    /// The address; zero = none.
    pub address: Be32,
    /// The interface.
    pub ifindex: u32,
    /// Its MAC address, then two zero bytes.
    pub mac: [u8; 8],
    /// Whether group packets that the routes lead to the party are copied there: 0 or 1.
    pub copies: u32,
}

/// What the rules need to know. All zero = the lane is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct LaneLocal {
    /// Own overlay address.
    pub address: Be32,
    /// The party's directed broadcast address.
    pub broadcast: Be32,
    /// How many of [`MEMBERS`] are in use.
    pub members: u32,
    /// Of `super::ALLOW_MDNS` and so on.
    pub allowed: u32,
    /// The party's interface.
    pub ifindex: u32,
    /// Directed broadcast addresses of physical networks.
    pub broadcasts: [Be32; MAX_BROADCASTS],
    /// This machine's addresses on physical networks.
    pub homes: [Home; MAX_HOMES],
}

/// What became of a member's copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct MemberCopies {
    /// Taken by the interface.
    pub sent: u64,
    /// Refused by it.
    pub failed: u64,
}

/// Who sends to which port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct RateKey {
    /// Overlay address of the sender.
    pub source: Be32,
    /// UDP's destination port; 0 for later fragments.
    pub port: u32,
}

/// What tells IPv4 packets of one sender apart: identification, place in its datagram, length, and the first eight bytes
/// behind the header, which for UDP are ports, length and checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct PacketKey {
    /// Source address.
    pub source: Be32,
    /// Destination address.
    pub destination: Be32,
    /// Identification, flags and fragment offset.
    pub id: Be32,
    /// Total length.
    pub length: u32,
    /// Behind the header; zero where the packet ends before.
    pub begin: [Be32; 2],
}

/// What a packet to everybody says, whoever sends it from wherever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct ContentKey {
    /// Of the payload.
    pub hash: u64,
    /// UDP's destination port.
    pub port: u32,
    /// Of the payload, bytes.
    pub length: u32,
}

/// When a content was sent and heard. Times are nanoseconds of one clock, and mean something only with a number that is not 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct ContentTimes {
    /// When this device sent it first, of late.
    pub sent_since: u64,
    /// When a member's came last.
    pub heard_at: u64,
    /// How often it was sent since then.
    pub sent: u32,
    /// How often it was heard.
    pub heard: u32,
}

/// Packets of one device to one destination and port: a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct TraceKey {
    /// Group or broadcast address, as it crosses the party.
    pub destination: Address,
    /// Overlay address of the sender.
    pub source: Be32,
    /// UDP's destination port.
    pub port: u32,
}

/// What became of a conversation's packets on this device. Numbers only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct TraceCount {
    /// Of this device: sent by a program. Of others: unwrapped here.
    pub packets: u64,
    /// Copies for members.
    pub copies: u64,
    /// Not carried.
    pub dropped: u64,
    /// UDP source port of the last one.
    pub source_port: u32,
    /// [`LaneReason::index`] of the last one that was not carried, plus one; 0 = none.
    pub reason: u32,
}

/// Packets of a member to a port of this device that asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct AnswerKey {
    /// Overlay address of the member.
    pub member: Be32,
    /// Own port.
    pub port: u16,
    /// The member's port.
    pub from_port: u16,
}

/// A member that has joined a group. No group: the member has said what it has joined, and gets nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct JoinKey {
    /// The group.
    pub group: Address,
    /// Overlay address.
    pub member: Be32,
    /// Zero.
    pub unused: u32,
}

/// Who is searched for where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct SearchKey {
    /// The group.
    pub group: Address,
    /// UDP's destination port.
    pub port: u64,
}

macro_rules! steps {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// How far packets came.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Step {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Step {
            /// All of them, in order.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Stable name, for counters.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

steps! {
    /// Group packets that this machine sent.
    Seen = "seen",
    /// Copies to members.
    Copied = "copied",
    /// Copies to members that were not made: they have not joined the group.
    Spared = "spared",
    /// Group packets of members.
    Delivered = "delivered",
    /// Group packets taken from a physical network, which keeps them.
    Captured = "captured",
    /// Copies of group packets to a physical network.
    HomeCopied = "home_copied",
    /// Packets whose source became the overlay address.
    SourceFixed = "source_fixed",
    /// Packets of members for a game that is bound to an address of a physical network.
    DestinationFixed = "destination_fixed",
}

impl Step {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Index of its counter.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self as u32
    }
}

const _: () = {
    assert!(size_of::<Home>() == 20 && size_of::<LaneLocal>() == 20 + 32 + 80);
    assert!(size_of::<PacketKey>() == 24 && size_of::<RateKey>() == 8 && size_of::<MemberCopies>() == 16);
    assert!(size_of::<ContentKey>() == 16 && size_of::<ContentTimes>() == 24);
    assert!(size_of::<TraceKey>() == 24 && size_of::<TraceCount>() == 32 && size_of::<AnswerKey>() == 8);
    assert!(size_of::<JoinKey>() == 24 && size_of::<SearchKey>() == 24);
    assert!(LaneReason::COUNT < 64 && Step::COUNT < 16);
};

#[cfg(all(feature = "user", target_os = "linux"))]
#[allow(unsafe_code)]
mod pod {
    // SAFETY: integers in the C representation without padding, asserted above; every bit pattern is a value.
    unsafe impl aya::Pod for super::LaneLocal {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::MemberCopies {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Be32 {}
    // SAFETY: as above; `Address` is 16 bytes.
    unsafe impl aya::Pod for super::TraceKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::TraceCount {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::AnswerKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::JoinKey {}
}
