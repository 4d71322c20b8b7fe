//! What a gateway does for devices behind it that know nothing of LANrage.
//!
//! | module | what |
//! |---|---|
//! | `translate` | other addresses in a packet, with all checksums that cover them |
//! | `wg_quick` | the file that a plain WireGuard client is configured with |

mod translate;
mod wg_quick;

pub use translate::{destination, source, translate};
pub use wg_quick::WgQuick;
