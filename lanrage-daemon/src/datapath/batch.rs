//! Whole kernel maps at once. aya reads and writes entry by entry, which takes seconds for a million of them.

#![allow(unsafe_code, reason = "bpf(2) takes raw pointers")]

use aya::Pod;
use aya_obj::generated::{bpf_attr, bpf_attr__bindgen_ty_3 as Batch, bpf_cmd};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// Entries asked for at a time.
const CHUNK: usize = 16_384;
/// Room for where the kernel goes on: a hash's bucket, or an array's index.
type Place = [u8; 64];

/// The entries of a map.
#[derive(Debug, Default)]
pub struct Entries {
    key_size: usize,
    value_size: usize,
    keys: Vec<u8>,
    values: Vec<u8>,
}

impl Entries {
    /// Reads all of them. Entries that others add or remove meanwhile may or may not be among them.
    pub fn read(map: BorrowedFd<'_>, key_size: u32, value_size: u32) -> io::Result<Self> {
        let mut entries =
            Self { key_size: key_size as usize, value_size: value_size as usize, ..Self::default() };
        let (mut from, mut to): (Option<Place>, Place) = (None, [0; 64]);
        let mut chunk = CHUNK;
        loop {
            let (read, result) = entries.read_chunk(map, from.as_ref(), &mut to, chunk);
            match result {
                Ok(()) => from = Some(to),
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(entries),
                // A bucket that does not fit is given as a whole or not at all.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && chunk <= 1 << 24 => {
                    chunk *= 2;
                    if read > 0 {
                        from = Some(to);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn read_chunk(
        &mut self,
        map: BorrowedFd<'_>,
        from: Option<&Place>,
        to: &mut Place,
        chunk: usize,
    ) -> (usize, io::Result<()>) {
        let have = self.len();
        self.keys.resize((have + chunk) * self.key_size, 0);
        self.values.resize((have + chunk) * self.value_size, 0);
        let mut batch = Batch {
            in_batch: from.map_or(0, |place| place.as_ptr() as u64),
            out_batch: to.as_mut_ptr() as u64,
            keys: self.keys[have * self.key_size..].as_mut_ptr() as u64,
            values: self.values[have * self.value_size..].as_mut_ptr() as u64,
            count: chunk as u32,
            map_fd: map.as_raw_fd().cast_unsigned(),
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: keys and values have room for `chunk` entries, the places for any key of an array and any bucket.
        let result = unsafe { call(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut batch) };
        let read = match &result {
            Err(error) if !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOSPC)) => 0,
            _ => (batch.count as usize).min(chunk),
        };
        self.keys.truncate((have + read) * self.key_size);
        self.values.truncate((have + read) * self.value_size);
        (read, result)
    }

    /// Adds or replaces all of them in a map of the same key and value size, as far as it has room.
    pub fn write(&self, map: BorrowedFd<'_>) -> io::Result<()> {
        let mut batch = Batch {
            in_batch: 0,
            out_batch: 0,
            keys: self.keys.as_ptr() as u64,
            values: self.values.as_ptr() as u64,
            count: u32::try_from(self.len()).unwrap_or(u32::MAX),
            map_fd: map.as_raw_fd().cast_unsigned(),
            elem_flags: 0,
            flags: 0,
        };
        if batch.count == 0 {
            return Ok(());
        }
        // SAFETY: keys and values hold `count` entries, which the kernel only reads.
        match unsafe { call(bpf_cmd::BPF_MAP_UPDATE_BATCH, &mut batch) } {
            Err(error) if error.raw_os_error() == Some(libc::E2BIG) => Ok(()),
            result => result,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.keys.len().checked_div(self.key_size).unwrap_or(0)
    }

    /// They as what they are; nothing if they have other sizes.
    pub fn typed<K: Pod, V: Pod>(&self) -> impl ExactSizeIterator<Item = (K, V)> {
        let fit = self.key_size == size_of::<K>() && self.value_size == size_of::<V>();
        let count = if fit { self.len() } else { 0 };
        (0..count).map(|at| {
            let (key, value) = (&self.keys[at * self.key_size..], &self.values[at * self.value_size..]);
            // SAFETY: both slices have at least the type's size, and any bytes are a value of a `Pod`.
            unsafe {
                (key.as_ptr().cast::<K>().read_unaligned(), value.as_ptr().cast::<V>().read_unaligned())
            }
        })
    }

    /// Keeps what belongs into an array of that many places.
    pub fn truncate_array(&mut self, places: u32) {
        let keep = self.len().min(places as usize);
        self.keys.truncate(keep * self.key_size);
        self.values.truncate(keep * self.value_size);
    }
}

/// # Safety
/// The pointers in `batch` must be valid for what `command` does with them.
unsafe fn call(command: bpf_cmd, batch: &mut Batch) -> io::Result<()> {
    // SAFETY: zeroes are a `bpf_attr`.
    let mut attributes: bpf_attr = unsafe { std::mem::zeroed() };
    attributes.batch = *batch;
    // SAFETY: the kernel reads and writes `attributes` within its size, and what the caller vouches for.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_uint, &raw mut attributes, size_of::<bpf_attr>())
    };
    let error = io::Error::last_os_error();
    // SAFETY: `batch` was written above, and is plain numbers.
    batch.count = unsafe { attributes.batch.count };
    if result == 0 { Ok(()) } else { Err(error) }
}
