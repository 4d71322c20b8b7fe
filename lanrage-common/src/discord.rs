//! What Discord is told, when somebody wants that: nothing unless it is switched on, and never an invite, a key or an address of the
//! internet.
//!
//! | module | what |
//! |---|---|
//! | [`News`] | what happens in the party, as messages for a channel's webhook |
//! | [`Presence`] | what somebody plays, for the Discord client on the same machine |

mod news;
mod presence;

pub use news::News;
pub use presence::{Activity, Presence, Refusal};
