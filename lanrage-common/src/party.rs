//! A member's view of its party.
