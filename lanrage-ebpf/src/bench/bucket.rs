//! A flow table that is not the kernel's hash: an array of cache lines, two to a bucket, two buckets for each key.
//!
//! A line holds key, value and a seal over both. There is one writer; a reader that meets a line half written finds that the
//! seal does not fit and takes it for another flow's. That needs no order between loads, so it holds on every processor.

/// Key of a flow.
pub type Key = [u64; 3];
/// Value of a flow.
pub type Value = [u64; 4];
/// Seal, key, value: one cache line.
pub type Line = [u64; 8];

/// Lines of a bucket.
pub const WIDTH: u32 = 2;

/// Spreads keys; nobody outside knows the seed, so nobody can choose keys that collide.
#[inline(always)]
pub fn hash(key: &Key, seed: u64) -> u64 {
    let mut hash = seed;
    for word in key {
        hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 32;
    }
    hash.wrapping_mul(0xd6e8_feb8_6659_fd93)
}

/// Ties a value to its key.
#[inline(always)]
pub fn seal(hash: u64, value: &Value) -> u64 {
    (hash | 1)
        .wrapping_add(value[0].wrapping_mul(0xbf58_476d_1ce4_e5b9))
        .wrapping_add(value[1].wrapping_mul(0x94d0_49bb_1331_11eb))
        .wrapping_add(value[2].wrapping_mul(0xff51_afd7_ed55_8ccd))
        .wrapping_add(value[3].wrapping_mul(0xc4ce_b9fe_1a85_ec53))
}

/// The four places of a key, likeliest first; `mask` is the number of buckets, a power of two, less one.
#[inline(always)]
pub fn places(hash: u64, mask: u32) -> [u32; 4] {
    let first = ((hash >> 32) as u32 & mask) * WIDTH + (hash as u32 >> 31);
    let second = (hash as u32 & mask) * WIDTH;
    [first, first ^ 1, second, second ^ 1]
}

/// The key of a flow: an IPv4 address mapped into IPv6, receiver index and port, spread as the generator spreads them.
#[inline(always)]
pub fn flow_key(flow: u32) -> Key {
    let address = 0x0202_470a_u32.wrapping_add((flow >> 12) << 24);
    let port = flow & 0xfff;
    [0, u64::from(address) << 32 | 0xffff_0000, u64::from(port) << 32 | u64::from(flow)]
}
