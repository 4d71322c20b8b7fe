//! The lab and shared fixtures of LANrage's tests.
//!
//! The lab is an internet of network namespaces in which the real binaries run: see [`lab`].
#![forbid(unsafe_code)]

pub mod bench;
pub mod frames;
pub mod games;
pub mod lab;
pub mod model;
pub mod relay_daemon;
pub mod stream;
pub mod veth;
