//! Only Linux can make single programs use the party.

use lanrage_common::lane::maps::LaneLocal;

/// Not on this operating system.
#[derive(Debug, thiserror::Error)]
#[error("only Linux can make single programs use the party: start the game as usual, most need nothing else")]
pub struct RunError;

/// None.
#[derive(Debug, Default)]
pub struct Runs;

impl Runs {
    /// Says that it cannot be done.
    pub fn start(&mut self, _: &str, _: LaneLocal) -> Result<(), RunError> {
        Err(RunError)
    }

    /// Does nothing.
    pub fn follow(&mut self, _: LaneLocal) {}

    /// Does nothing.
    pub fn sweep(&mut self) {}
}
