//! The home network of a gateway: what devices there send to members' aliases goes to the party's interface, and the host's
//! own routes never see it.

use crate::edit::PASS;
use crate::maps;
use aya_ebpf::helpers::{bpf_redirect, bpf_skb_load_bytes_relative};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use lanrage_common::wire::{Be32, ETHERTYPE_IPV4};

/// `BPF_HDR_START_NET`: offsets count from the IP header.
const START_NET: u32 = 1;
/// Where the destination lies in an IPv4 header.
const DESTINATION: u32 = 16;

#[classifier]
pub fn lan_ingress(skb: TcContext) -> i32 {
    let Some(local) = maps::local() else { return PASS };
    let context = skb.skb.skb;
    // SAFETY: the context is the program's own.
    if unsafe { (*context).protocol } != u32::from(ETHERTYPE_IPV4.to_be()) {
        return PASS;
    }
    let mut to = Be32::default();
    // SAFETY: the context is the program's own, and the kernel writes the whole address or nothing.
    let read = unsafe {
        bpf_skb_load_bytes_relative(context.cast(), DESTINATION, (&raw mut to).cast(), 4, START_NET)
    };
    if read != 0 || !maps::is_alias(to) {
        return PASS;
    }
    // SAFETY: a helper without memory arguments; its value is the verdict.
    unsafe { bpf_redirect(local.ifindex, 0) as i32 }
}
