//! How long a failed object waits for its next pass: doubled with each failure in a row, within two bounds. Pure; the
//! queue counts the failures.

use std::time::Duration;

/// Lower bound (first delay) and upper bound of the exponential curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackoffPolicy {
    min: Duration,
    max: Duration,
}

/// Why two durations make no [`BackoffPolicy`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BackoffError {
    /// A delay of zero would retry in a busy loop.
    #[error("the minimum retry delay must be above zero")]
    Zero,
    /// The curve could never reach its maximum.
    #[error("the maximum retry delay ({max:?}) is below the minimum ({min:?})")]
    Order {
        /// The minimum given.
        min: Duration,
        /// The maximum given.
        max: Duration,
    },
}

impl BackoffPolicy {
    /// Checks `--min-retry-delay` against `--max-retry-delay`.
    pub fn new(min: Duration, max: Duration) -> Result<Self, BackoffError> {
        if min.is_zero() {
            return Err(BackoffError::Zero);
        }
        if max < min {
            return Err(BackoffError::Order { min, max });
        }
        Ok(Self { min, max })
    }

    /// The delay after the `failures`-th failure in a row: `min · 2^(failures − 1)`, at most `max`. 0 counts as 1.
    pub fn delay(&self, failures: u32) -> Duration {
        let factor = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        self.min.saturating_mul(factor).min(self.max)
    }
}

impl Default for BackoffPolicy {
    /// Flux's defaults: 750 ms, doubled up to 15 minutes.
    fn default() -> Self {
        Self {
            min: Duration::from_millis(750),
            max: Duration::from_mins(15),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_from_750_ms_up_to_15_minutes() {
        let policy = BackoffPolicy::default();
        let delays: Vec<_> = (1..14).map(|failures| policy.delay(failures).as_millis()).collect();
        let expected = [
            750, 1_500, 3_000, 6_000, 12_000, 24_000, 48_000, 96_000, 192_000, 384_000, 768_000, 900_000, 900_000,
        ];
        assert_eq!(delays, expected);
    }

    #[test]
    fn never_overflows() {
        let policy = BackoffPolicy::new(Duration::from_secs(1), Duration::MAX).unwrap();
        assert_eq!(policy.delay(u32::MAX), Duration::from_secs(u64::from(u32::MAX)));
        assert_eq!(BackoffPolicy::default().delay(0), Duration::from_millis(750));
    }

    #[test]
    fn contradicting_delays_are_refused() {
        let second = Duration::from_secs(1);
        assert_eq!(BackoffPolicy::new(Duration::ZERO, second), Err(BackoffError::Zero));
        assert!(matches!(
            BackoffPolicy::new(second * 2, second),
            Err(BackoffError::Order { .. })
        ));
    }
}
