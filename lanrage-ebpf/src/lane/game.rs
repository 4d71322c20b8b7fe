//! Hooks for one game, started by `lanrage run`: it means the party where it says a physical network.

use crate::maps;
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use lanrage_common::lane::maps::LaneLocal;
use lanrage_common::wire::{Address, Be32, Family};

/// Go on; 0 would refuse the system call.
const ALLOW: i32 = 1;
/// The third word of an IPv4 address in IPv6 (RFC 4291, section 2.5.5.2).
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

/// Bound to a physical network's address, a socket hears no group packets and is not found on the overlay address; bound
/// to any, it has both networks.
#[cgroup_sock_addr(bind4)]
pub fn game_bind4(context: SockAddrContext) -> i32 {
    let address = context.sock_addr;
    // SAFETY: the context is the program's own.
    if let Some(local) = maps::local()
        && is_home(local, unsafe { (*address).user_ip4 })
    {
        // SAFETY: as above.
        unsafe { (*address).user_ip4 = 0 };
    }
    ALLOW
}

/// The same for sockets that use IPv4 through IPv6.
#[cgroup_sock_addr(bind6)]
pub fn game_bind6(context: SockAddrContext) -> i32 {
    let address = context.sock_addr;
    // SAFETY: the context is the program's own.
    let (third, fourth) = unsafe { ((*address).user_ip6[2], (*address).user_ip6[3]) };
    if let Some(local) = maps::local()
        && third == MAPPED
        && is_home(local, fourth)
    {
        // SAFETY: as above.
        unsafe { (*address).user_ip6[3] = 0 };
    }
    ALLOW
}

/// A group packet leaves from the overlay address, and so by the party's interface; a physical network's broadcast
/// address becomes the party's. The party's interface sends the copy for the physical network.
#[cgroup_sock_addr(sendmsg4)]
pub fn game_sendmsg4(context: SockAddrContext) -> i32 {
    let address = context.sock_addr;
    let Some(local) = maps::local() else { return ALLOW };
    // SAFETY: the context is the program's own.
    let to = word(unsafe { (*address).user_ip4 });
    if local.is_group(Family::V4, &Address::from_v4(to)) {
        // SAFETY: as above.
        unsafe { (*address).msg_src_ip4 = number(local.address) };
    }
    ALLOW
}

#[inline(always)]
fn is_home(local: &LaneLocal, address: u32) -> bool {
    let address = word(address);
    !address.is_zero() && local.homes.iter().any(|home| home.address == address)
}

#[inline(always)]
fn word(number: u32) -> Be32 {
    Be32::from_octets(number.to_ne_bytes())
}

#[inline(always)]
fn number(word: Be32) -> u32 {
    u32::from_ne_bytes(word.octets())
}
