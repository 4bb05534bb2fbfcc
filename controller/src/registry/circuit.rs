//! Hosts that cannot be connected to: after some failures in a row only one probe at a time goes out, at growing distance.
//!
//! Counts connect failures alone. Rate limits and server errors of one object never hold up another.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::config::RetryPolicy;

/// Hosts remembered at most; tenants can invent host names.
const MAX_HOSTS: usize = 4096;

#[derive(Default)]
pub(super) struct Circuits {
    hosts: Mutex<HashMap<Box<str>, State>>,
}

struct State {
    failures: u32,
    next_probe: Instant,
}

impl Circuits {
    /// Whether a connection to `host` may be tried now; if not, how long until the next probe. The caller that is let
    /// through while the circuit is open is the probe: nobody else is until it is reported, or `patience` is over within
    /// which every connection is made or given up.
    pub(super) fn admit(
        &self,
        host: &str,
        policy: &RetryPolicy,
        patience: Duration,
        now: Instant,
    ) -> Result<(), Duration> {
        let mut hosts = self.lock();
        let Some(state) = hosts.get_mut(host) else {
            return Ok(());
        };
        if state.failures < policy.circuit_failures {
            return Ok(());
        }
        if now < state.next_probe {
            return Err(state.next_probe - now);
        }
        state.next_probe = now + distance(policy, state.failures).max(patience);
        Ok(())
    }

    /// A connection to `host` exists.
    pub(super) fn connected(&self, host: &str) {
        let mut hosts = self.lock();
        if !hosts.is_empty() {
            hosts.remove(host);
        }
    }

    /// A connection to `host` failed.
    pub(super) fn failed(&self, host: &str, policy: &RetryPolicy, now: Instant) {
        let mut hosts = self.lock();
        if hosts.len() >= MAX_HOSTS {
            hosts.retain(|_, state| state.next_probe > now);
        }
        if hosts.len() >= MAX_HOSTS && !hosts.contains_key(host) {
            return;
        }
        let state = hosts.entry(host.into()).or_insert(State {
            failures: 0,
            next_probe: now,
        });
        state.failures = state.failures.saturating_add(1);
        state.next_probe = now + distance(policy, state.failures);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, State>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn distance(policy: &RetryPolicy, failures: u32) -> Duration {
    let doublings = failures.saturating_sub(policy.circuit_failures).min(16);
    policy
        .probe_delay
        .saturating_mul(1 << doublings)
        .min(policy.probe_delay_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Circuits of the default policy, and a host that failed five times at the start.
    struct Scene {
        circuits: Circuits,
        policy: RetryPolicy,
        start: Instant,
    }

    impl Scene {
        fn open() -> Self {
            let (circuits, policy, start) = (Circuits::default(), RetryPolicy::default(), Instant::now());
            let scene = Self {
                circuits,
                policy,
                start,
            };
            for _ in 0..5 {
                assert_eq!(scene.admit("h", 0), Ok(()));
                scene.failed(0);
            }
            scene
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        fn admit(&self, host: &str, seconds: u64) -> Result<(), u64> {
            let admitted = self.circuits.admit(host, &self.policy, PATIENCE, self.at(seconds));
            admitted.map_err(|wait| wait.as_secs())
        }

        fn failed(&self, seconds: u64) {
            self.circuits.failed("h", &self.policy, self.at(seconds));
        }
    }

    #[test]
    fn opens_after_five_failures_probes_once_and_closes() {
        let scene = Scene::open();
        assert_eq!(scene.admit("h", 0), Err(1));
        assert_eq!(scene.admit("other", 0), Ok(()));
        assert_eq!(scene.admit("h", 1), Ok(()), "the probe");
        assert!(scene.admit("h", 1).is_err(), "only one");
        scene.failed(1);
        assert_eq!(scene.admit("h", 1), Err(2));
        scene.circuits.connected("h");
        assert_eq!(scene.admit("h", 1), Ok(()));
    }

    #[test]
    fn a_slow_probe_is_still_the_only_one() {
        let scene = Scene::open();
        assert_eq!(scene.admit("h", 1), Ok(()), "the probe, which hangs");
        assert_eq!(scene.admit("h", 3), Err(8));
        assert_eq!(scene.admit("h", 11), Ok(()), "its pass was given up: another one");
        scene.failed(20);
        assert_eq!(scene.admit("h", 20), Err(2), "counted from its end");
    }

    #[test]
    fn distance_is_bounded() {
        assert_eq!(distance(&RetryPolicy::default(), 500), Duration::from_mins(1));
    }
}
