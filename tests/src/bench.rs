//! `cargo xtask bench`: the relay against what else could forward its packets, in one run on one machine.
//!
//! Everything happens in memory between network namespaces, so figures compare with each other and with nothing else.

pub mod bed;
pub mod chart;
pub mod cost;
pub mod coturn;
pub mod generator;
pub mod lane;
pub mod latency;
pub mod layout;
pub mod machine;
pub mod page;
pub mod pages;
pub mod processor;
pub mod relay;
pub mod report;
pub mod rows;
pub mod session;
pub mod survival;
pub mod table;
pub mod turn;
