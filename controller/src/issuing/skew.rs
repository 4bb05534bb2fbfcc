//! The API server's clock as its `Date` headers show it, against ours. A key's life is counted in wall time by everybody,
//! so no step of it is made while the two disagree; a look that is too old says nothing.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use http::{HeaderMap, header::DATE};
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// How long a look at the API server's clock counts.
const FRESH: Duration = Duration::from_mins(1);
/// Above this difference no step of a key's life is made.
const TOLERATED: SignedDuration = SignedDuration::from_secs(60);

/// The newest look at the API server's clock. Since then its time has passed as ours by the monotonic clock, so that a step
/// of our wall clock shows at once.
#[derive(Debug, Default)]
pub struct ServerClock(Mutex<Option<Look>>);

#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    theirs: Timestamp,
}

impl ServerClock {
    /// Takes in the `Date` of an answer that comes now. Answers without one tell nothing.
    pub fn observe(&self, headers: &HeaderMap) {
        let date = headers.get(DATE).and_then(|value| value.to_str().ok());
        let Some(theirs) = date.and_then(|text| httpdate::parse_http_date(text).ok()) else {
            return;
        };
        let Ok(theirs) = Timestamp::try_from(theirs) else {
            return;
        };
        let at = Instant::now();
        *self.lock() = Some(Look { at, theirs });
    }

    /// `ours`, our clock now, minus the API server's by the newest look, however old; to the second.
    pub fn skew(&self, ours: Timestamp) -> Option<SignedDuration> {
        let look = (*self.lock())?;
        let theirs = look.theirs.checked_add(look.at.elapsed()).ok()?;
        Some(difference(ours, theirs))
    }

    /// How long ago the newest look was.
    pub fn age(&self) -> Option<Duration> {
        self.lock().map(|look| look.at.elapsed())
    }

    /// Whether the newest look still counts.
    pub fn is_known(&self) -> bool {
        self.age().is_some_and(|age| age <= FRESH)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Look>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a difference is too large for steps of a key's life.
pub fn is_skewed(skew: SignedDuration) -> bool {
    skew.abs() > TOLERATED
}

/// Ours minus theirs. `Date` has no fractions: a second in which both agree counts as no difference.
fn difference(ours: Timestamp, theirs: Timestamp) -> SignedDuration {
    SignedDuration::from_secs(ours.as_second() - theirs.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(date: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(DATE, http::HeaderValue::from_static(date))])
    }

    #[tokio::test(start_paused = true)]
    async fn the_difference_is_ours_minus_theirs_and_ages() {
        let (clock, now) = (
            ServerClock::default(),
            "2026-11-22T10:00:00.9Z".parse::<Timestamp>().unwrap(),
        );
        clock.observe(&HeaderMap::new());
        clock.observe(&answer("yesterday"));
        assert!(!clock.is_known() && clock.skew(now).is_none());
        clock.observe(&answer("Sun, 22 Nov 2026 09:58:59 GMT"));
        assert_eq!(clock.skew(now), Some(SignedDuration::from_secs(61)));
        assert!(clock.skew(now).is_some_and(is_skewed) && clock.is_known());
        tokio::time::advance(FRESH + Duration::from_secs(1)).await;
        assert!(!clock.is_known(), "an old look tells nothing");
        clock.observe(&answer("Sun, 22 Nov 2026 10:01:00 GMT"));
        assert!(
            clock.is_known() && !clock.skew(now).is_some_and(is_skewed),
            "60 s are tolerated"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_of_our_clock_shows_without_another_look() {
        let clock = ServerClock::default();
        let ours = |second: i64| Timestamp::from_second(1_800_000_000 + second).unwrap();
        clock.observe(&answer("Fri, 15 Jan 2027 08:00:00 GMT"));
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(clock.skew(ours(30)), Some(SignedDuration::ZERO));
        assert_eq!(clock.skew(ours(30 + 120)), Some(SignedDuration::from_secs(120)));
    }
}
