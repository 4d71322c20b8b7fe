//! What the benchmark's programs are told: one array entry of words, of which these are the places.
//!
//! Both sides include this file, so neither can read what the other did not write.

/// Words of the frame's beginning that the generator writes afresh: pages come back as the last receiver left them.
pub const TEMPLATE: usize = 7;
/// Number of flows; each packet belongs to a random one.
pub const FLOWS: usize = 7;
/// Offset of the receiver index in the frame, 0 = none.
pub const INDEX_AT: usize = 8;
/// The first flow's receiver index.
pub const FIRST_INDEX: usize = 9;
/// From one flow's receiver index to the next one's.
pub const INDEX_STRIDE: usize = 10;
/// The first flow's source address and source port, as numbers.
pub const FIRST_ADDRESS: usize = 11;
/// See [`FIRST_ADDRESS`].
pub const FIRST_PORT: usize = 12;
/// The first UDP port that the sink counts.
pub const SINK_PORT: usize = 13;
/// How many it counts from there on.
pub const SINK_PORTS: usize = 14;
/// All of them.
pub const WORDS: usize = 15;

/// Flows that share a source address, each with a port of its own.
pub const PORTS: u32 = 1 << 12;
