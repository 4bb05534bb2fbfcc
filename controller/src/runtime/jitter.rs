//! Spreads the passes of objects that share an interval, so that they do not reach a registry in one burst.
//!
//! Pure: the random number is an argument.

use std::time::Duration;

/// `interval` moved by up to `percent` of itself in either direction, as Flux's `--interval-jitter-percentage` does.
///
/// `random` is uniform in `[0, 1)`: 0 gives the shortest result, 0.5 the interval itself. A percentage above 100 counts
/// as 100, a `random` outside its range is brought into it; the result is never negative.
pub fn jittered(interval: Duration, percent: u8, random: f64) -> Duration {
    let share = f64::from(percent.min(100)) / 100.0;
    let offset = if random.is_finite() {
        random.clamp(0.0, 1.0).mul_add(2.0, -1.0)
    } else {
        0.0
    };
    interval.mul_f64(offset.mul_add(share, 1.0).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    #[test]
    fn stays_within_the_percentage_on_both_sides() {
        assert_eq!(jittered(MINUTE, 5, 0.0), Duration::from_secs(57));
        assert_eq!(jittered(MINUTE, 5, 0.5), MINUTE);
        assert!(jittered(MINUTE, 5, 0.999_999) < Duration::from_secs(63));
        assert!(jittered(MINUTE, 5, 0.999_999) > Duration::from_millis(62_999));
    }

    #[test]
    fn zero_percent_changes_nothing() {
        assert_eq!(jittered(MINUTE, 0, 0.9), MINUTE);
    }

    #[test]
    fn odd_arguments_are_brought_into_range() {
        assert_eq!(jittered(MINUTE, 255, 0.0), Duration::ZERO);
        assert_eq!(jittered(MINUTE, 5, 7.0), Duration::from_secs(63));
        assert_eq!(jittered(MINUTE, 5, f64::NAN), MINUTE);
    }
}
