//! The one score of how well two members can play together (docs/metrics.md).

use crate::api::PathKind;

/// Up to this cost, in milliseconds, nothing is to be wished.
const PERFECT: f64 = 20.0;
/// Milliseconds of cost that take one point.
const POINT: f64 = 2.0;
/// Jitter is felt twice: as delay, and as motion that is not smooth.
const JITTER_WEIGHT: f64 = 2.0;
/// One lost packet in a hundred is as bad as 10 ms.
const LOSS_WEIGHT: f64 = 1000.0;

/// 100 is as good as a LAN, 0 is no fun: 100 less half a point for each millisecond of round trip + 2 × jitter +
/// 10 × percent of loss beyond 20. None while there is no path, or no round trip is known.
pub fn quality(path: PathKind, rtt_ms: Option<f64>, jitter_ms: Option<f64>, loss: Option<f64>) -> Option<u8> {
    let rtt = rtt_ms.filter(|_| path != PathKind::None)?;
    let cost = rtt + JITTER_WEIGHT * jitter_ms.unwrap_or(0.0) + LOSS_WEIGHT * loss.unwrap_or(0.0);
    Some((100.0 - (cost - PERFECT).max(0.0) / POINT).clamp(0.0, 100.0).round() as u8)
}

/// What a quality is called: nobody notices the distance, one does, or fast games are no fun.
pub const fn word(quality: u8) -> &'static str {
    match quality {
        80.. => "very good",
        50..80 => "fair",
        0..50 => "poor",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_examples() {
        let of = |rtt, jitter, loss| quality(PathKind::Direct, Some(rtt), Some(jitter), Some(loss));
        assert_eq!(of(5.0, 1.0, 0.0), Some(100));
        assert_eq!(of(40.0, 2.0, 0.0), Some(88));
        assert_eq!(of(40.0, 2.0, 0.02), Some(78));
        assert_eq!(of(100.0, 10.0, 0.0), Some(50));
        assert_eq!(of(300.0, 0.0, 0.0), Some(0));
        assert_eq!(quality(PathKind::Direct, Some(20.0), None, None), Some(100));
        assert_eq!(quality(PathKind::None, Some(20.0), None, None), None);
        assert_eq!(quality(PathKind::Relay, None, None, Some(1.0)), None);
    }

    #[test]
    fn the_documented_words() {
        assert_eq!(
            [100, 80, 79, 50, 49, 0].map(word),
            ["very good", "very good", "fair", "fair", "poor", "poor"]
        );
    }
}
