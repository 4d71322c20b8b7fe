//! There is no kernel data path on this operating system.

use super::{Fallback, InstallError, Report};
use crate::config::RelayConfig;
use lanrage_common::relay::{Flow, Target};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddrV4;

/// Cannot exist.
#[derive(Debug)]
pub struct Kernel(Infallible);

impl Kernel {
    /// Says that there is none.
    pub async fn open(_: &RelayConfig, _: SocketAddrV4) -> Result<(Self, Report), Fallback> {
        Err(Fallback::new("only Linux can forward in the kernel", "run the relay on Linux"))
    }

    /// Never called.
    pub fn install(&mut self, _: Flow, _: Target) -> Result<(), InstallError> {
        match self.0 {}
    }

    /// Never called.
    pub fn remove(&mut self, _: Flow) {
        match self.0 {}
    }

    /// Never called.
    pub async fn maintain(&mut self, _: &mut Report) {
        match self.0 {}
    }

    /// Never called.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        match self.0 {}
    }

    /// Never called.
    pub fn forwarded(&self) -> u64 {
        match self.0 {}
    }
}
