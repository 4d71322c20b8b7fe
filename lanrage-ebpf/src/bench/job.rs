//! What the benchmark's programs are told: one array entry of words, of which these are the places.
//!
//! Both sides include this file, so neither can read what the other did not write.

/// Words of the frame's beginning that the generator writes afresh: pages come back as the last receiver left them.
pub const TEMPLATE: usize = 9;
/// Number of flows; each packet belongs to a random one.
pub const FLOWS: usize = 9;
/// Offset of the receiver index in the frame, 0 = none.
pub const INDEX_AT: usize = 10;
/// The first flow's receiver index.
pub const FIRST_INDEX: usize = 11;
/// From one flow's receiver index to the next one's.
pub const INDEX_STRIDE: usize = 12;
/// The first flow's source address and source port, as numbers.
pub const FIRST_ADDRESS: usize = 13;
/// See [`FIRST_ADDRESS`].
pub const FIRST_PORT: usize = 14;
/// The first UDP port that the sink counts.
pub const SINK_PORT: usize = 15;
/// How many it counts from there on.
pub const SINK_PORTS: usize = 16;
/// How many flows each core sends; as a network card does, each of several gets others.
pub const SHARE: usize = 17;
/// All of them.
pub const WORDS: usize = 18;

/// Flows that share a source address, each with a port of its own.
pub const PORTS: u32 = 1 << 12;
