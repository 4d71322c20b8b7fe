//! The real control server on a loopback port, with the real client and with hostile ones.

mod abuse;
mod crash;
mod login;
mod membership;
mod relays;
mod restart;
mod support;
