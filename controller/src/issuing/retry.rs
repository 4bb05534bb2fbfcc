//! When the API server is asked again after it failed: 750 ms, doubled with each failure up to 30 s. A minute without
//! failure begins anew.

use std::time::Duration;

use tokio::time::Instant;

const FIRST: Duration = Duration::from_millis(750);
const LONGEST: Duration = Duration::from_secs(30);
const FORGOTTEN: Duration = Duration::from_mins(1);

/// Failures in a row.
#[derive(Debug, Default)]
pub(super) struct Retry {
    failures: u32,
    last: Option<Instant>,
    not_before: Option<Instant>,
}

impl Retry {
    /// Something failed at `now`.
    pub(super) fn failed(&mut self, now: Instant) {
        if self
            .last
            .is_some_and(|last| now.saturating_duration_since(last) >= FORGOTTEN + LONGEST)
        {
            self.failures = 0;
        }
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        self.last = Some(now);
        self.not_before = Some(now + FIRST.saturating_mul(factor).min(LONGEST));
    }

    /// Whatever failed has changed: ask at once.
    pub(super) fn at_once(&mut self) {
        self.not_before = None;
    }

    /// Something succeeded at `now`. Successes between failures leave the delay as it is: two that take turns in undoing
    /// what the other wrote slow down.
    pub(super) fn succeeded(&mut self, now: Instant) {
        self.not_before = None;
        if self
            .last
            .is_some_and(|last| now.saturating_duration_since(last) >= FORGOTTEN)
        {
            self.failures = 0;
            self.last = None;
        }
    }

    /// When the next attempt may be made; `None` for now.
    pub(super) fn wait_until(&self, now: Instant) -> Option<Instant> {
        self.not_before.filter(|at| *at > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_30_s_and_a_quiet_minute_begins_anew() {
        let (mut retry, start) = (Retry::default(), Instant::now());
        let mut delays = Vec::new();
        for _ in 0..8 {
            retry.failed(start);
            delays.push(retry.wait_until(start).unwrap().duration_since(start).as_millis());
        }
        assert_eq!(delays, [750, 1_500, 3_000, 6_000, 12_000, 24_000, 30_000, 30_000]);
        retry.succeeded(start);
        assert_eq!(retry.wait_until(start), None);
        retry.failed(start);
        assert_eq!(retry.wait_until(start), Some(start + LONGEST), "success in between");
        retry.succeeded(start + FORGOTTEN);
        retry.failed(start + FORGOTTEN);
        assert_eq!(retry.wait_until(start), Some(start + FORGOTTEN + FIRST));
    }
}
