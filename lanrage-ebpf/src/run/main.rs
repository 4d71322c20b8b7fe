//! Makes single programs use the party (`lanrage run`): attached to the cgroup that a program was started in, for sockets over
//! IPv4. Only what is for everybody is led anywhere; what goes to one address goes as it would without.
//!
//! | program | when | what |
//! |---|---|---|
//! | `run_bind4` | bind | a physical network's address becomes "all addresses": that hears the party, and speaks with its source |
//! | `run_connect4` | connect | a physical network's directed broadcast becomes 255.255.255.255, which the party has |
//! | `run_sendmsg4` | sendto, sendmsg | the same |
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
        let address = address(&context);
        if let Some(local) = local()
            && !address.is_zero()
            && (0..MAX_HOMES).any(|slot| local.homes[slot].address == address)
        {
            set_address(&context, Be32::default());
        }
        GO_ON
    }

    #[cgroup_sock_addr(connect4)]
    pub fn run_connect4(context: SockAddrContext) -> i32 {
        // SAFETY: the context is the program's own.
        if unsafe { (*context.sock_addr).protocol } == u32::from(PROTOCOL_UDP) {
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
        if local().is_some_and(|local| local.is_local_broadcast(address(context))) {
            set_address(context, Be32::from_octets([255; 4]));
        }
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
