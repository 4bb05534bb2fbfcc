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

/// The newest look at the API server's clock.
#[derive(Debug, Default)]
pub struct ServerClock(Mutex<Option<(Instant, SignedDuration)>>);

impl ServerClock {
    /// Takes in the `Date` of an answer that came at `now` by our clock. Answers without one tell nothing.
    pub fn observe(&self, headers: &HeaderMap, now: Timestamp) {
        let date = headers.get(DATE).and_then(|value| value.to_str().ok());
        let Some(theirs) = date.and_then(|text| httpdate::parse_http_date(text).ok()) else {
            return;
        };
        let Ok(theirs) = Timestamp::try_from(theirs) else {
            return;
        };
        *self.lock() = Some((Instant::now(), difference(now, theirs)));
    }

    /// Our clock minus the API server's by the newest look, however old; to the second.
    pub fn skew(&self) -> Option<SignedDuration> {
        self.lock().map(|(_, skew)| skew)
    }

    /// How long ago the newest look was.
    pub fn age(&self) -> Option<Duration> {
        self.lock().map(|(at, _)| at.elapsed())
    }

    /// Whether the newest look still counts.
    pub fn is_known(&self) -> bool {
        self.age().is_some_and(|age| age <= FRESH)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Instant, SignedDuration)>> {
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
        let (clock, now) = (ServerClock::default(), "2026-11-22T10:00:00.9Z".parse().unwrap());
        clock.observe(&HeaderMap::new(), now);
        clock.observe(&answer("yesterday"), now);
        assert!(!clock.is_known() && clock.skew().is_none());
        clock.observe(&answer("Sun, 22 Nov 2026 09:58:59 GMT"), now);
        assert_eq!(clock.skew(), Some(SignedDuration::from_secs(61)));
        assert!(clock.skew().is_some_and(is_skewed) && clock.is_known());
        tokio::time::advance(FRESH + Duration::from_secs(1)).await;
        assert!(!clock.is_known(), "an old look tells nothing");
        clock.observe(&answer("Sun, 22 Nov 2026 10:01:00 GMT"), now);
        assert!(
            clock.is_known() && !clock.skew().is_some_and(is_skewed),
            "60 s are tolerated"
        );
    }
}
