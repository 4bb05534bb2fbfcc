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
    /// through while the circuit is open is the probe: nobody else is until it is reported or its time is over.
    pub(super) fn admit(&self, host: &str, policy: &RetryPolicy, now: Instant) -> Result<(), Duration> {
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
        state.next_probe = now + distance(policy, state.failures);
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

    #[test]
    fn opens_after_five_failures_probes_once_and_closes() {
        let (circuits, policy, start) = (Circuits::default(), RetryPolicy::default(), Instant::now());
        for _ in 0..5 {
            assert_eq!(circuits.admit("h", &policy, start), Ok(()));
            circuits.failed("h", &policy, start);
        }
        assert_eq!(circuits.admit("h", &policy, start), Err(Duration::from_secs(1)));
        assert_eq!(circuits.admit("other", &policy, start), Ok(()));
        let later = start + Duration::from_secs(1);
        assert_eq!(circuits.admit("h", &policy, later), Ok(()), "the probe");
        assert!(circuits.admit("h", &policy, later).is_err(), "only one");
        circuits.failed("h", &policy, later);
        assert_eq!(circuits.admit("h", &policy, later), Err(Duration::from_secs(2)));
        circuits.connected("h");
        assert_eq!(circuits.admit("h", &policy, later), Ok(()));
    }

    #[test]
    fn distance_is_bounded() {
        assert_eq!(distance(&RetryPolicy::default(), 500), Duration::from_mins(1));
    }
}
