//! There is no kernel data path on this operating system.

use super::{Adopted, Fallback, InstallError, Report, Served};
use crate::config::RelayConfig;
use lanrage_common::maps::{Counter, MemberCounter};
use lanrage_common::reason::Reason;
use lanrage_common::relay::{Flow, MemberLimits, Target};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

/// Cannot exist.
#[derive(Debug)]
pub struct Kept(Infallible);

impl Kept {
    /// Says that there is none.
    pub fn open(_: &RelayConfig, _: &Path) -> Result<Self, Fallback> {
        Err(only_linux())
    }

    /// Never called.
    pub fn adopted(self) -> Adopted {
        match self.0 {}
    }

    /// Never called.
    pub fn flows(&self) -> std::iter::Empty<(Flow, Target)> {
        match self.0 {}
    }

    /// Nothing was kept.
    pub fn remove(_: &Path) -> io::Result<()> {
        Ok(())
    }
}

fn only_linux() -> Fallback {
    Fallback::new("only Linux can forward in the kernel", "run the relay on Linux")
}

/// Cannot exist.
#[derive(Debug)]
pub struct Kernel(Infallible);

impl Kernel {
    /// Says that there is none.
    pub async fn open(_: &RelayConfig, _: Served, _: Option<&Kept>) -> Result<(Self, Report), Fallback> {
        Err(only_linux())
    }

    /// Never called.
    pub fn take_over(&mut self, _: &Kept) {
        match self.0 {}
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
    pub fn keep_record(&mut self, _: u32, _: &[u8]) -> Result<(), InstallError> {
        match self.0 {}
    }

    /// Never called.
    pub fn admit(&mut self, _: u32, _: SocketAddr, _: MemberLimits) {
        match self.0 {}
    }

    /// Never called.
    pub fn dismiss(&mut self, _: SocketAddr) {
        match self.0 {}
    }

    /// Never called.
    pub fn enforce(&mut self) {
        match self.0 {}
    }

    /// Never called.
    pub fn catch_up(&mut self) {
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
    pub fn reasons(&self) -> Vec<(Reason, Counter)> {
        match self.0 {}
    }

    /// Never called.
    pub fn member(&self, _: u32) -> MemberCounter {
        match self.0 {}
    }

    /// Never called.
    pub fn unresolved(&self) -> usize {
        match self.0 {}
    }

    /// Never called.
    pub fn forwarded(&self) -> u64 {
        match self.0 {}
    }
}
