//! `cargo xtask bench`: the relay against what else could forward its packets, in one run on one machine.
//!
//! Everything happens in memory between network namespaces, so figures compare with each other and with nothing else.

pub mod cost;
pub mod generator;
pub mod machine;
pub mod relay;
pub mod report;
pub mod rows;
pub mod session;
