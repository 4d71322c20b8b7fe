//! Linux: control messages (cmsg(3)), what travels beside a datagram.

use std::marker::PhantomData;
use std::mem::zeroed;

/// Room for all control messages of one message.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Buffer([u8; 128]);

impl Default for Buffer {
    fn default() -> Self {
        Self([0; 128])
    }
}

impl Buffer {
    pub(super) fn as_mut_ptr(&mut self) -> *mut libc::c_void {
        self.0.as_mut_ptr().cast()
    }
}

/// Writes control messages one behind the other.
pub(super) struct Writer<'a> {
    buffer: &'a mut Buffer,
    length: usize,
}

impl<'a> Writer<'a> {
    pub(super) fn new(buffer: &'a mut Buffer) -> Self {
        Self { buffer, length: 0 }
    }

    pub(super) fn push<T: Copy>(&mut self, level: libc::c_int, kind: libc::c_int, value: T) {
        // SAFETY: pure arithmetic.
        let (space, length) =
            unsafe { (libc::CMSG_SPACE(size_of::<T>() as u32), libc::CMSG_LEN(size_of::<T>() as u32)) };
        let end = self.length + space as usize;
        assert!(end <= size_of::<Buffer>(), "three control messages fit");
        // SAFETY: `space` bytes from `length` on are in the buffer, which is aligned for cmsghdr as `length` is.
        unsafe {
            let header = self.buffer.0.as_mut_ptr().add(self.length).cast::<libc::cmsghdr>();
            (*header).cmsg_len = length as _;
            (*header).cmsg_level = level;
            (*header).cmsg_type = kind;
            libc::CMSG_DATA(header).cast::<T>().write_unaligned(value);
        }
        self.length = end;
    }

    pub(super) fn length(&self) -> usize {
        self.length
    }
}

/// The control messages of a received message.
pub(super) struct Controls<'a> {
    header: &'a libc::msghdr,
    next: *const libc::cmsghdr,
}

impl<'a> Controls<'a> {
    /// `header` must have been filled by the kernel, with a control buffer that is still there.
    pub(super) fn of(header: &'a libc::msghdr) -> Self {
        // SAFETY: the kernel has set length and contents.
        Self { header, next: unsafe { libc::CMSG_FIRSTHDR(header) } }
    }
}

impl<'a> Iterator for Controls<'a> {
    type Item = Control<'a>;

    fn next(&mut self) -> Option<Control<'a>> {
        if self.next.is_null() {
            return None;
        }
        let control = Control { header: self.next, _borrowed: PhantomData };
        // SAFETY: `next` lies in the control buffer of `header`.
        self.next = unsafe { libc::CMSG_NXTHDR(self.header, self.next) };
        Some(control)
    }
}

pub(super) struct Control<'a> {
    header: *const libc::cmsghdr,
    _borrowed: PhantomData<&'a libc::msghdr>,
}

impl Control<'_> {
    /// Level and type.
    pub(super) fn kind(&self) -> (libc::c_int, libc::c_int) {
        // SAFETY: points to a whole header in the control buffer.
        unsafe { ((*self.header).cmsg_level, (*self.header).cmsg_type) }
    }

    /// The value; all-zero when the message is too short for one.
    pub(super) fn read<T: Copy + Plain>(&self) -> T {
        // SAFETY: the length is checked, and every bit pattern is a `Plain`.
        unsafe {
            let needed = libc::CMSG_LEN(size_of::<T>() as u32) as usize;
            if (*self.header).cmsg_len < needed {
                return zeroed();
            }
            libc::CMSG_DATA(self.header).cast::<T>().read_unaligned()
        }
    }
}

/// Types of which every bit pattern is a value.
///
/// # Safety
/// That must be true.
pub(super) unsafe trait Plain {}

// SAFETY: integers, and structures of nothing else.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for libc::c_int {}
// SAFETY: as above.
unsafe impl Plain for libc::in_pktinfo {}
// SAFETY: as above.
unsafe impl Plain for libc::in6_pktinfo {}
