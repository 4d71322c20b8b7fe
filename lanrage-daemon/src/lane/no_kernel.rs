//! There is no kernel lane on this operating system.

use super::Fallback;
use crate::gateway::LanTap;
use lanrage_common::api::LaneStatus;
use lanrage_common::lane::Lane;
use lanrage_common::lane::maps::{AnswerKey, TraceCount, TraceKey};
use std::convert::Infallible;

/// Nothing.
#[derive(Debug, Default)]
pub struct Prepared;

impl Prepared {
    /// Does nothing.
    pub fn start() -> Self {
        Self
    }
}

/// Cannot exist.
#[derive(Debug)]
pub struct KernelLane(Infallible);

impl KernelLane {
    /// Says that there is none.
    pub fn open(_: &mut Prepared, _: &str, _: u32) -> Result<Self, Fallback> {
        Err(Fallback::new("only Linux can carry group packets in the kernel", "nothing is wrong"))
    }

    /// Never called.
    pub fn hook(&self) -> &'static str {
        match self.0 {}
    }

    /// Never called.
    pub fn follow(&mut self, _: &Lane) {
        match self.0 {}
    }

    /// Never called.
    pub fn follow_lans(&mut self, _: &[LanTap]) -> Result<(), String> {
        match self.0 {}
    }

    /// Never called.
    pub fn traced(&self) -> Vec<(TraceKey, TraceCount)> {
        match self.0 {}
    }

    /// Never called.
    pub fn answers(&self) -> Vec<(AnswerKey, u64)> {
        match self.0 {}
    }

    /// Never called.
    pub fn forget(&mut self, _: &TraceKey) {
        match self.0 {}
    }

    /// Never called.
    pub fn count(&self, _: &mut LaneStatus) {
        match self.0 {}
    }
}
