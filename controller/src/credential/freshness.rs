//! When a credential is to be renewed: a part of its life, counted on the monotonic and on the wall clock, whichever
//! comes first. A wall clock that jumps back cannot keep an old credential alive, nor can a machine that slept.

use std::time::{Duration, Instant, SystemTime};

/// Until when a credential counts as fresh, on both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Freshness {
    monotonic: Instant,
    wall: SystemTime,
}

impl Freshness {
    /// Fresh for `share` (0 to 1) of `life` from now.
    pub fn for_life(life: Duration, share: f64) -> Self {
        let fresh = life.mul_f64(share.clamp(0.0, 1.0));
        Self {
            monotonic: Instant::now() + fresh,
            wall: SystemTime::now() + fresh,
        }
    }

    /// Fresh for half of `life`, spread by `jitter` (-1 to 1) times 10 % of that half, so that credentials minted together
    /// are not renewed together.
    pub fn for_half_life(life: Duration, jitter: f64) -> Self {
        Self::for_life(life, 0.5 + 0.05 * jitter.clamp(-1.0, 1.0))
    }

    /// Whether both clocks say so.
    pub fn is_fresh(&self) -> bool {
        self.is_fresh_at(Instant::now(), SystemTime::now())
    }

    fn is_fresh_at(&self, monotonic: Instant, wall: SystemTime) -> bool {
        monotonic < self.monotonic && wall < self.wall
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_clock_ends_it() {
        let fresh = Freshness::for_life(Duration::from_secs(100), 0.8);
        let (m, w) = (Instant::now(), SystemTime::now());
        assert!(fresh.is_fresh_at(m + Duration::from_secs(79), w));
        assert!(!fresh.is_fresh_at(m + Duration::from_secs(81), w));
        assert!(!fresh.is_fresh_at(m, w + Duration::from_secs(81)));
    }

    #[test]
    fn half_life_is_spread_by_a_tenth() {
        let life = Duration::from_secs(100);
        let (early, late) = (
            Freshness::for_half_life(life, -1.0),
            Freshness::for_half_life(life, 1.0),
        );
        let spread = late.monotonic.duration_since(early.monotonic);
        assert!(
            spread >= Duration::from_secs(10) && spread < Duration::from_secs(11),
            "{spread:?}"
        );
    }
}
