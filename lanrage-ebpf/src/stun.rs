//! STUN Binding requests, answered on the spot when the answer is no longer than the request.

use crate::maps;
use crate::packet::{Checked, Frame, NewHeaders, layout, move_tail};
use aya_ebpf::bindings::xdp_md;
use lanrage_common::forward::DONT_FRAGMENT;
use lanrage_common::maps::Local;
use lanrage_common::reason::Reason;
use lanrage_common::stun::{
    Answer, BINDING_REQUEST, COOKIE, HEADER_LEN, MAX_ATTRIBUTES, MAX_ATTRIBUTES_LEN, is_ignorable, long_len,
    short_len,
};
use lanrage_common::wire::{Address, Be16, Be32, ChecksumDelta, DEFAULT_TTL, Family, PROTOCOL_UDP, UDP_LEN};

/// A UDP and a STUN header.
type Request<const L2: usize, const L3: usize> = Checked<L2, L3, { UDP_LEN + HEADER_LEN }>;

/// Does it look like STUN? (RFC 8489, section 6.3)
#[inline(always)]
pub fn is_stun<const L2: usize, const L3: usize>(frame: &Frame) -> bool {
    let Some(request) = frame.begin::<L2, L3, { UDP_LEN + HEADER_LEN }>() else { return false };
    request.receiver_index() == COOKIE && request.stun_type().0.octets()[0] & 0xc0 == 0
}

/// Answers a Binding request: [`Reason::StunAnswered`]. [`Reason::StunPassed`] when it wants more than an address, or is
/// too short for what it would get.
#[inline(never)]
pub fn answer<const L2: usize, const L3: usize>(context: *mut xdp_md) -> Reason {
    let frame = Frame::new(context);
    let Some(request) = frame.begin::<L2, L3, { UDP_LEN + HEADER_LEN }>() else { return Reason::StunPassed };
    let Some(local) = maps::local() else { return Reason::StunPassed };
    let Some(is_long) = plan(&frame, request, local) else { return Reason::StunPassed };
    let family = layout(L2, L3).family;
    let length = if is_long { long_len(family) } else { short_len(family) };
    let surplus = i32::from(request.udp_length()) - (UDP_LEN + length) as i32;
    if surplus != 0 && !move_tail(context, -surplus) {
        return Reason::StunPassed;
    }
    let frame = Frame::new(context);
    let written = match (family, is_long) {
        (Family::V4, false) => write::<L2, L3, { UDP_LEN + short_len(Family::V4) }>(&frame, None),
        (Family::V4, true) => write::<L2, L3, { UDP_LEN + long_len(Family::V4) }>(&frame, Some(local)),
        (Family::V6, false) => write::<L2, L3, { UDP_LEN + short_len(Family::V6) }>(&frame, None),
        (Family::V6, true) => write::<L2, L3, { UDP_LEN + long_len(Family::V6) }>(&frame, Some(local)),
    };
    if written.is_some() { Reason::StunAnswered } else { Reason::Broken }
}

/// Turns a request, whose end has been cut off or not, into its answer.
#[inline(always)]
fn write<const L2: usize, const L3: usize, const MORE: usize>(
    frame: &Frame,
    local: Option<&Local>,
) -> Option<()> {
    let bytes = frame.begin::<L2, L3, MORE>()?;
    let family = layout(L2, L3).family;
    let mapped = (bytes.source(), bytes.source_port());
    let origin = (bytes.destination(), bytes.destination_port());
    let others = local.map(|local| [origin, local.other(family, &origin.0, origin.1).unwrap_or_default()]);
    let mut sum = ChecksumDelta::new();
    Answer { transaction: bytes.transaction(), mapped, others }.write(family, |number, word| {
        sum = sum.add32(word);
        bytes.set_word(number, word);
    });
    bytes.swap_macs();
    bytes.write_all_headers(&headers(family, origin, mapped, (MORE as u16, sum)));
    Some(())
}

/// Whether the answer is a long one; nothing when there is to be none.
#[inline(always)]
fn plan<const L2: usize, const L3: usize>(
    frame: &Frame,
    request: Request<L2, L3>,
    local: &Local,
) -> Option<bool> {
    let (kind, length) = request.stun_type();
    let payload = usize::from(request.udp_length()) - UDP_LEN;
    let family = layout(L2, L3).family;
    let mapped = (request.source(), request.source_port());
    let is_plain = kind == BINDING_REQUEST && usize::from(length) + HEADER_LEN == payload;
    if !is_plain || payload < short_len(family) || !can_be_answered(local, family, mapped) {
        return None;
    }
    if !has_only_ignorable(frame, L2 + L3 + UDP_LEN + HEADER_LEN, usize::from(length)) {
        return None;
    }
    // with another address to name, the daemon has a budget for requests that are shorter than the full answer
    let is_long = local.other(family, &request.destination(), request.destination_port()).is_some();
    if is_long && payload < long_len(family) { None } else { Some(is_long) }
}

/// Nobody is at port 0 or at a group's address, and the relay does not talk to itself.
#[inline(always)]
fn can_be_answered(local: &Local, family: Family, (address, port): (Address, Be16)) -> bool {
    !port.is_zero() && address.is_unicast() && !local.has_address(family, &address)
}

/// Walks over the attributes, `length` bytes of them from `at` on.
#[inline(always)]
fn has_only_ignorable(frame: &Frame, at: usize, length: usize) -> bool {
    if length > MAX_ATTRIBUTES_LEN {
        return false;
    }
    let mut offset = 0;
    for _ in 0..MAX_ATTRIBUTES {
        if offset >= length {
            break;
        }
        // the compiler knows that the mask changes nothing; the verifier of Linux 6.1 does not
        let bounded = core::hint::black_box(offset) & (MAX_ATTRIBUTES_LEN - 1);
        let Some(word) = frame.word(at + bounded) else { return false };
        let [a, b, c, d] = word.octets();
        if !is_ignorable(u16::from_be_bytes([a, b])) {
            return false;
        }
        offset += 4 + (usize::from(u16::from_be_bytes([c, d])) + 3 & !3);
    }
    offset == length
}

#[inline(always)]
fn headers(
    family: Family,
    (source, source_port): (Address, Be16),
    (destination, destination_port): (Address, Be16),
    (udp_length, body): (u16, ChecksumDelta),
) -> NewHeaders {
    let udp_checksum = body
        .add_address((family, &source))
        .add_address((family, &destination))
        .add16(Be16::new(u16::from(PROTOCOL_UDP)))
        .add16(source_port)
        .add16(destination_port)
        .add16(Be16::new(udp_length))
        .add16(Be16::new(udp_length))
        .udp_checksum();
    let label = match family {
        Family::V4 => DONT_FRAGMENT,
        Family::V6 => Be32::from_octets([0x60, 0, 0, 0]),
    };
    let (traffic_class, ttl, tag) = (0, DEFAULT_TTL, 0);
    NewHeaders {
        traffic_class,
        label,
        ttl,
        udp_length,
        source,
        destination,
        source_port,
        destination_port,
        udp_checksum,
        tag,
    }
}
