//! What a gateway does for devices behind it that know nothing of LANrage.
//!
//! | module | what |
//! |---|---|
//! | `lan` | a home network without any software in the party: [`Lan`] |
//! | `aliases`, `arp` | addresses there that stand for members: chosen, asked for, answered for |
//! | `guests` | the devices there that take part |
//! | `group` | group packets there: what crosses, what has come round |
//! | `neighbours` | members on that network, and who of several gateways serves it |
//! | `translate` | other addresses in a packet, with all checksums that cover them |
//! | `wg_quick` | the file that a plain WireGuard client is configured with |

mod aliases;
mod arp;
mod group;
mod guests;
mod lan;
mod neighbours;
mod translate;
mod wg_quick;

pub use aliases::{Conflict, MAX_ALIASES, Taken};
pub use arp::Mac;
pub use guests::LanDevice;
pub use lan::{Lan, LanConfig, Output as LanOutput};
pub use translate::{destination, source, translate};
pub use wg_quick::WgQuick;
