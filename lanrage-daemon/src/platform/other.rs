//! Systems without code of their own yet: everything says so.

use super::{InterfaceConfig, InterfaceError, Network, Route};
use std::io;

/// See the Linux file.
#[derive(Debug)]
pub enum Interface {}

impl Interface {
    /// Always refuses.
    pub async fn create(_config: InterfaceConfig) -> Result<Self, InterfaceError> {
        Err(InterfaceError::Unsupported)
    }

    /// Cannot be called.
    pub fn name(&self) -> &str {
        match *self {}
    }

    /// Cannot be called.
    pub fn index(&self) -> u32 {
        match *self {}
    }

    /// Cannot be called.
    pub fn config(&self) -> &InterfaceConfig {
        match *self {}
    }

    /// Cannot be called.
    pub async fn readable(&self) -> io::Result<()> {
        match *self {}
    }

    /// Cannot be called.
    pub fn try_recv(&self, _buffer: &mut [u8]) -> io::Result<usize> {
        match *self {}
    }

    /// Cannot be called.
    pub fn send(&self, _packet: &[u8]) -> io::Result<()> {
        match *self {}
    }

    /// Cannot be called.
    pub async fn set_lengths(
        &mut self,
        _lengths: std::collections::BTreeMap<std::net::Ipv4Addr, u16>,
    ) -> io::Result<()> {
        match *self {}
    }

    /// Cannot be called.
    pub async fn repair(&self) -> io::Result<()> {
        match *self {}
    }
}

/// Never wakes.
#[derive(Debug)]
pub struct NetworkWatch;

impl NetworkWatch {
    /// Nothing to watch.
    pub fn new() -> io::Result<Self> {
        Ok(Self)
    }

    /// Never returns.
    pub async fn changed(&mut self) {
        std::future::pending().await
    }
}

/// None known.
pub async fn networks(_except: &str) -> io::Result<Vec<Network>> {
    Ok(Vec::new())
}

/// None known.
pub async fn mtus() -> io::Result<std::collections::HashMap<String, u32>> {
    Ok(std::collections::HashMap::new())
}

/// None known.
pub async fn routes() -> io::Result<Vec<Route>> {
    Ok(Vec::new())
}

/// None known.
pub async fn gateway() -> io::Result<Option<std::net::Ipv4Addr>> {
    Ok(None)
}

/// Not known.
pub async fn gateway6() -> io::Result<Option<(std::net::Ipv6Addr, u32)>> {
    Ok(None)
}

/// Not known.
pub fn host_name() -> Option<String> {
    None
}

/// What a process's own times may count from: here nothing outlives a process.
pub fn clock_zero() -> std::time::Instant {
    std::time::Instant::now()
}

/// Nothing to do.
pub fn prepare_socket(_socket: &socket2::Socket) -> io::Result<()> {
    Ok(())
}

/// Only sends: whether somebody cuts it is not ours to say here.
pub fn uncut<T>(
    _socket: socket2::SockRef<'_>,
    _to: std::net::SocketAddr,
    send: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    send()
}

/// Not to be had here.
pub fn raw_socket(_index: u32) -> io::Result<socket2::Socket> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Not to be had here.
#[derive(Debug)]
pub struct EthernetPort(std::convert::Infallible);

impl EthernetPort {
    /// Says that there is none.
    pub fn open(_index: u32) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Never called.
    pub fn poll_readable(&self, _context: &mut std::task::Context<'_>) -> std::task::Poll<()> {
        match self.0 {}
    }

    /// Never called.
    pub fn try_recv(&self, _buffer: &mut [u8]) -> io::Result<usize> {
        match self.0 {}
    }

    /// Never called.
    pub fn send(&self, _frame: &[u8]) -> io::Result<()> {
        match self.0 {}
    }
}

/// Not known.
pub fn is_wireless(_name: &str) -> bool {
    false
}

/// Makes a TCP connection fit for datagrams, as far as every system can.
pub fn prepare_stream(stream: socket2::SockRef<'_>) -> io::Result<()> {
    stream.set_tcp_nodelay(true)
}

/// Other systems have no such limit, or a high one.
pub fn allow_files(_count: u64) -> io::Result<()> {
    Ok(())
}
