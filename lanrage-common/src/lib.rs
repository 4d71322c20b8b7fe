//! The core of LANrage that has no I/O: packet views, kernel map layouts, message types and state machines.
//!
//! | feature | adds | used by |
//! |---|---|---|
//! | none | `wire`, `reason`, `maps`, `forward`, `police`, `stun`, rules and maps of the `lane` (`no_std`) | kernel programs |
//! | `std` | identity, messages, and the state machines | daemon, tests, every operating system |
//! | `user` | `aya::Pod` for the map types | the daemon's kernel loader |
//!
//! Every state machine has the same four verbs: `handle_*(input, now)`, `poll_output()`, `poll_timeout()`,
//! `handle_timeout(now)`. None reads a clock, owns a socket or makes its own randomness.
#![cfg_attr(not(feature = "std"), no_std)]
#![deny(missing_docs)]

pub mod forward;
pub mod lane;
pub mod maps;
pub mod police;
pub mod reason;
pub mod stun;
pub mod wire;

#[cfg(feature = "std")]
pub mod address;
#[cfg(feature = "std")]
pub mod api;
#[cfg(feature = "std")]
pub mod binding;
#[cfg(feature = "std")]
pub mod bucket;
#[cfg(feature = "std")]
pub mod bulletin;
#[cfg(feature = "std")]
pub mod carrier;
#[cfg(feature = "std")]
pub mod control;
#[cfg(feature = "std")]
pub mod devices;
#[cfg(feature = "std")]
pub mod discord;
#[cfg(feature = "std")]
pub mod firewall;
#[cfg(feature = "std")]
pub mod gateway;
#[cfg(feature = "std")]
pub mod identity;
#[cfg(feature = "std")]
pub mod invite;
#[cfg(feature = "std")]
pub mod ipam;
#[cfg(feature = "std")]
pub mod marks;
#[cfg(feature = "std")]
pub mod members;
#[cfg(feature = "std")]
pub mod mods;
#[cfg(feature = "std")]
pub mod nat;
#[cfg(feature = "std")]
pub mod party;
#[cfg(feature = "std")]
pub mod path;
#[cfg(feature = "std")]
pub mod pcp;
#[cfg(feature = "std")]
pub mod protocol;
#[cfg(feature = "std")]
pub mod relay;
#[cfg(feature = "std")]
pub mod relays;
#[cfg(feature = "std")]
pub mod score;
#[cfg(feature = "std")]
pub mod servers;
#[cfg(feature = "std")]
pub mod ticket;
#[cfg(feature = "std")]
pub mod time;
