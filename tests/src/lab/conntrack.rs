//! Forgetting connections: a NAT whose rules changed keeps using old mappings until they are flushed.

use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{Read as _, Write as _};

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE`; without attributes it deletes all entries.
const DELETE_ALL: u16 = (1 << 8) | 2;
/// `NLM_F_REQUEST | NLM_F_ACK`.
const FLAGS: u16 = 1 | 4;
/// `struct nlmsghdr` and `struct nfgenmsg`.
const REQUEST_BYTES: u32 = 16 + 4;

/// Deletes all conntrack entries of the calling thread's network namespace.
pub fn flush() -> Result<()> {
    let protocol = Protocol::from(libc::NETLINK_NETFILTER);
    let mut socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(protocol))
        .context("cannot talk to the kernel's connection tracking")?;
    socket.write_all(&request())?;
    let mut answer = [0; 256];
    let length = socket.read(&mut answer)?;
    match answer[..length].get(16..20).and_then(|code| code.try_into().ok()).map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(code) => Err(std::io::Error::from_raw_os_error(-code)).context("cannot flush conntrack"),
        None => bail!("the kernel's answer to a conntrack flush is too short"),
    }
}

fn request() -> Vec<u8> {
    let (sequence, port) = (1u32, 0u32);
    let generic = [0u8; 4]; // any address family, version 0
    [
        &REQUEST_BYTES.to_ne_bytes()[..],
        &DELETE_ALL.to_ne_bytes(),
        &FLAGS.to_ne_bytes(),
        &sequence.to_ne_bytes(),
        &port.to_ne_bytes(),
        &generic,
    ]
    .concat()
}
