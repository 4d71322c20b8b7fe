//! An internet in a box: network namespaces with routers, NATs, a control server, a relay and peers.
//!
//! ```text
//!              lr-net (routes 192.0.2.0/24, 203.0.113.0/24, 198.51.100.0/24)
//!     ┌───────────┬──────────┴─┬─────────────┐
//!   lr-ctl      lr-rly       lr-n1         lr-n2      NAT routers, one a peer
//!   control     relay          │             │
//!                            lr-p1         lr-p2      peers
//! ```
//!
//! Everything the lab makes is written to its directory below [`state::ROOT`] before it is made, so that `down` works
//! after a crash too.

pub mod capture;
pub mod conntrack;
pub mod demo;
pub mod detour;
pub mod emulator;
pub mod flow;
pub mod impairment;
pub mod interrupt;
pub mod live;
pub mod matrix;
pub mod nat;
pub mod netns;
pub mod party;
pub mod process;
pub mod remote;
pub mod role;
pub mod router;
pub mod running;
pub mod site;
pub mod state;
pub mod story;
pub mod topology;
pub mod traffic;
