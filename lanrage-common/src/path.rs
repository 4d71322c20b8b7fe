//! How a pair of members finds and keeps its path.

pub mod probe;
