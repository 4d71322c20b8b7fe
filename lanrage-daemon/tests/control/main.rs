//! The real control server on a loopback port, with the real client and with hostile ones.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod abuse;
mod crash;
mod login;
mod membership;
mod relays;
mod restart;
mod support;
