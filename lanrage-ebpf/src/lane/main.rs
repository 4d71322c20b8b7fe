//! The lane in the kernel: group packets of the party's interface are wrapped for each member on their way out, and
//! unwrapped on their way in. The rules are [`lanrage_common::lane`]'s, as in userspace.
//!
//! | program | where | what |
//! |---|---|---|
//! | `lane_egress` | tc, the party's interface | wraps; lets games that are bound to another address talk from the overlay's |
//! | `lane_ingress` | tc, the party's interface | unwraps; leads answers to games that are bound to another address |
//! | `nic_egress` | tc, physical networks | takes a copy of what games send there |
//! | `lan_ingress` | tc, a gateway's home network | leads what is for members' aliases to the party's interface |
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod edit;
#[cfg(target_arch = "bpf")]
mod lan;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod nic;
#[cfg(target_arch = "bpf")]
mod packet;
#[cfg(target_arch = "bpf")]
mod trace;
#[cfg(target_arch = "bpf")]
mod unwrap;
#[cfg(target_arch = "bpf")]
mod wrap;

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("lanrage-lane holds kernel programs: build them with `cargo xtask build-ebpf`");
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
