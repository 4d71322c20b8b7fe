//! Passes everything. A veth delivers what is redirected to it only while the receiving end has an XDP program.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("xdp-pass is a kernel program: build it with `cargo xtask build-ebpf`");
}

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};

    #[xdp]
    fn pass(_: XdpContext) -> u32 {
        xdp_action::XDP_PASS
    }

    /// The kernel gives some functions only to programs under the GPL.
    #[unsafe(no_mangle)]
    #[unsafe(link_section = "license")]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo) -> ! {
        loop {}
    }
}
