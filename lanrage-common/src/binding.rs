//! STUN messages (RFC 8489) by which a member binds to a relay, and the member's side of the exchange.
//!
//! ```text
//! member                                              relay
//!   | Bind request  ACCESS-TOKEN                        |  no state; answer not longer than the request
//!   |-------------------------------------------------->|
//!   |            401 ERROR-CODE, NONCE (names the source)|
//!   |<--------------------------------------------------|
//!   | Bind request  ACCESS-TOKEN, NONCE, M-I-SHA256     |  the address is proven, the ticket opened,
//!   |-------------------------------------------------->|  the binding kept for LIFETIME seconds
//!   |  success  XOR-MAPPED-ADDRESS, LIFETIME, NONCE, M-I |
//!   |<--------------------------------------------------|
//! ```
//!
//! ACCESS-TOKEN (RFC 7635) holds the sealed [`crate::ticket::Ticket`]; MESSAGE-INTEGRITY-SHA256 (RFC 8489, section
//! 14.6) is keyed by the ticket's session key. The NONCE of a success is the one to use next, so that a refresh costs
//! one round trip. LIFETIME 0 in a request gives the binding back.

mod attribute;
mod client;
mod message;
mod nonce;
#[cfg(test)]
mod tests;

pub use client::{BindingClient, Output, UnboundReason};
pub use message::{
    BIND_METHOD, BehaviourAnswer, BindAnswer, BindRequest, BindingRequest, FullAnswer, Refusal, Request,
    behaviour_request, binding_answer, binding_request, bound_answer, challenge_answer, full_answer, is_stun,
    parse_answer, parse_behaviour_answer, parse_binding_answer, parse_request, refusal_answer, unable_answer,
    verify_integrity,
};
pub use nonce::NonceKey;

use std::time::Duration;

/// How long a relay keeps a binding that is not refreshed.
pub const LIFETIME: Duration = Duration::from_secs(60);
