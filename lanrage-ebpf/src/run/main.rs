//! Makes single programs use the party (`lanrage run`): attached to the cgroup that a program was started in, for what goes over
//! IPv4, also by sockets of IPv6 (`::ffff:a.b.c.d`). Only what is for everybody is led anywhere; what goes to one address goes
//! as it would without.
//!
//! | program | when | what |
//! |---|---|---|
//! | `run_bind4` | bind | a physical network's address becomes "all addresses": that hears the party, and speaks with its source |
//! | `run_connect4` | connect | a physical network's directed broadcast becomes 255.255.255.255, which the party has |
//! | `run_sendmsg4` | sendto, sendmsg | the same; the kernel asks it for sockets of IPv6 too |
//! | `run_bind6`, `run_connect6` | | as for IPv4, by a socket of IPv6 |
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("lanrage-run holds kernel programs: build them with `cargo xtask build-ebpf`");
}

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::macros::{cgroup_sock_addr, map};
    use aya_ebpf::maps::Array;
    use aya_ebpf::programs::SockAddrContext;
    use lanrage_common::lane::maps::{LaneLocal, MAX_HOMES};
    use lanrage_common::wire::{Be32, PROTOCOL_UDP};

    /// The system call goes on.
    const GO_ON: i32 = 1;

    #[map]
    static RUN_LOCAL: Array<LaneLocal> = Array::with_max_entries(1, 0);

    /// What the daemon told; nothing while the party is down.
    #[inline(always)]
    fn local() -> Option<&'static LaneLocal> {
        RUN_LOCAL.get(0).filter(|local| !local.address.is_zero())
    }

    #[cgroup_sock_addr(bind4)]
    pub fn run_bind4(context: SockAddrContext) -> i32 {
        if is_home(address(&context)) {
            set_address(&context, Be32::default());
        }
        GO_ON
    }

    #[cgroup_sock_addr(bind6)]
    pub fn run_bind6(context: SockAddrContext) -> i32 {
        if mapped(&context).is_some_and(is_home) {
            set_mapped(&context, Be32::default());
        }
        GO_ON
    }

    #[cgroup_sock_addr(connect6)]
    pub fn run_connect6(context: SockAddrContext) -> i32 {
        if is_udp(&context) && mapped(&context).is_some_and(is_home_broadcast) {
            set_mapped(&context, Be32::from_octets([255; 4]));
        }
        GO_ON
    }

    #[cgroup_sock_addr(connect4)]
    pub fn run_connect4(context: SockAddrContext) -> i32 {
        if is_udp(&context) {
            lead(&context);
        }
        GO_ON
    }

    #[cgroup_sock_addr(sendmsg4)]
    pub fn run_sendmsg4(context: SockAddrContext) -> i32 {
        lead(&context);
        GO_ON
    }

    #[inline(always)]
    fn lead(context: &SockAddrContext) {
        if is_home_broadcast(address(context)) {
            set_address(context, Be32::from_octets([255; 4]));
        }
    }

    #[inline(always)]
    fn is_udp(context: &SockAddrContext) -> bool {
        // SAFETY: the context is the program's own.
        unsafe { (*context.sock_addr).protocol == u32::from(PROTOCOL_UDP) }
    }

    /// Is it this machine's on a physical network?
    #[inline(always)]
    fn is_home(address: Be32) -> bool {
        let is_one = |local: &LaneLocal| (0..MAX_HOMES).any(|slot| local.homes[slot].address == address);
        !address.is_zero() && local().is_some_and(is_one)
    }

    #[inline(always)]
    fn is_home_broadcast(address: Be32) -> bool {
        local().is_some_and(|local| local.is_local_broadcast(address))
    }

    /// The IPv4 address that a socket of IPv6 uses.
    #[inline(always)]
    fn mapped(context: &SockAddrContext) -> Option<Be32> {
        // SAFETY: the context is the program's own. One word at a time, as the kernel wants it.
        let word = |at: usize| unsafe { (&raw const (*context.sock_addr).user_ip6[at]).read_volatile() };
        let is_mapped = word(0) == 0 && word(1) == 0 && word(2) == u32::from_be(0xffff);
        is_mapped.then(|| Be32::from_octets(word(3).to_ne_bytes()))
    }

    #[inline(always)]
    fn set_mapped(context: &SockAddrContext, address: Be32) {
        let word = u32::from_ne_bytes(address.octets());
        // SAFETY: as above, and the kernel lets these programs write it.
        unsafe { (&raw mut (*context.sock_addr).user_ip6[3]).write_volatile(word) };
    }

    #[inline(always)]
    fn address(context: &SockAddrContext) -> Be32 {
        // SAFETY: the context is the program's own.
        Be32::from_octets(unsafe { (*context.sock_addr).user_ip4 }.to_ne_bytes())
    }

    #[inline(always)]
    fn set_address(context: &SockAddrContext, address: Be32) {
        // SAFETY: as above, and the kernel lets these programs write it.
        unsafe { (*context.sock_addr).user_ip4 = u32::from_ne_bytes(address.octets()) };
    }
}

/// The kernel gives some functions only to programs under the GPL.
#[cfg(target_arch = "bpf")]
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
