//! The real control server on a loopback port, with the real client and with hostile ones.

mod membership;
mod support;
