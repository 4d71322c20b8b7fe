//! Whether somebody keeps this machine's clock. Tickets are dated: a relay whose clock is minutes off refuses them.
#![allow(unsafe_code)]

use serde::Serialize;

/// The clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Clock {
    /// Whether the kernel counts it as synchronised; unknown where it may not be asked.
    pub synchronised: Option<bool>,
    /// How wrong it may be, milliseconds.
    pub error_ms: Option<u64>,
}

impl Clock {
    /// Asks the kernel.
    pub fn look() -> Self {
        // SAFETY: `timex` is plain numbers, for which zero is a value; mode 0 only reads.
        let (state, timex) = unsafe {
            let mut timex: libc::timex = std::mem::zeroed();
            (libc::adjtimex(&raw mut timex), timex)
        };
        if state < 0 {
            return Self { synchronised: None, error_ms: None };
        }
        let synchronised = timex.status & libc::STA_UNSYNC == 0;
        let error_ms = u64::try_from(timex.maxerror).ok().map(|micros| micros / 1000);
        Self { synchronised: Some(synchronised), error_ms: error_ms.filter(|_| synchronised) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unsynchronised_clock_has_no_error_bound() {
        let clock = Clock::look();
        assert!(clock.synchronised == Some(true) || clock.error_ms.is_none(), "{clock:?}");
    }
}
