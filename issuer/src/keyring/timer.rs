//! When something is due: only when both clocks say so. The monotonic clock counts from the moment at which this process
//! knew something as stored, the wall clock from the stored time; so a stored time can only make it later. Every question
//! that is answered with "not yet" is remembered, which makes the next due moment right by construction.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::event::Clocks;
use super::state::{Entry, KeyState, RingState};

/// Since when, by the monotonic clock, this process knows what as stored.
#[derive(Debug, Default)]
pub(super) struct Since {
    /// Keys, by id.
    published: BTreeMap<String, Duration>,
    /// Retired keys, by id.
    retired: BTreeMap<String, Duration>,
    /// Roots, by [`super::state::root_id`].
    roots: BTreeMap<String, Duration>,
}

impl Since {
    /// Begins to count for what is new in `state`, and forgets what is no longer there.
    pub(super) fn note(&mut self, state: &RingState, monotonic: Duration) {
        let retired = |retired: bool| {
            let jwt = state.jwt.iter().filter(move |entry| !retired || is_retired(entry));
            let x509 = state.x509.iter().filter(move |entry| !retired || is_retired(entry));
            jwt.map(|entry| entry.id.clone())
                .chain(x509.map(|entry| entry.id.clone()))
                .collect::<BTreeSet<_>>()
        };
        note(&mut self.published, retired(false), monotonic);
        note(&mut self.retired, retired(true), monotonic);
        note(&mut self.roots, state.roots.keys().cloned().collect(), monotonic);
    }

    pub(super) fn published(&self, id: &str) -> Option<Duration> {
        self.published.get(id).copied()
    }

    pub(super) fn retired(&self, id: &str) -> Option<Duration> {
        self.retired.get(id).copied()
    }

    pub(super) fn root(&self, id: &str) -> Option<Duration> {
        self.roots.get(id).copied()
    }
}

fn is_retired<M>(entry: &Entry<M>) -> bool {
    entry.state == KeyState::Retired
}

fn note(known: &mut BTreeMap<String, Duration>, now: BTreeSet<String>, monotonic: Duration) {
    known.retain(|id, _| now.contains(id));
    for id in now {
        known.entry(id).or_insert(monotonic);
    }
}

/// Answers for one moment whether something is due.
#[derive(Debug)]
pub(super) struct Timer<'a> {
    pub(super) since: &'a Since,
    clocks: Clocks,
    next: Cell<Option<Duration>>,
}

impl<'a> Timer<'a> {
    pub(super) fn new(since: &'a Since, clocks: Clocks) -> Self {
        Self {
            since,
            clocks,
            next: Cell::new(None),
        }
    }

    pub(super) fn wall(&self) -> Timestamp {
        self.clocks.wall
    }

    /// Whether `wait` has passed since `since` (monotonic) and since `at` (wall). What is not known as stored is not due.
    pub(super) fn passed(&self, since: Option<Duration>, at: Timestamp, wait: Duration) -> bool {
        let Some(since) = since else { return false };
        let by_monotonic = wait.saturating_sub(self.clocks.monotonic.saturating_sub(since));
        let behind = at.duration_since(self.clocks.wall);
        let by_wall = Duration::try_from(behind).map_or_else(
            |_| wait.saturating_sub(behind.unsigned_abs()),
            |ahead| wait.saturating_add(ahead),
        );
        self.is_over(by_monotonic.max(by_wall))
    }

    /// Whether the wall clock has reached `at`.
    pub(super) fn reached(&self, at: Timestamp) -> bool {
        self.is_over(Duration::try_from(at.duration_since(self.clocks.wall)).unwrap_or_default())
    }

    /// How long until the first "not yet" may become a "yes".
    pub(super) fn next(&self) -> Option<Duration> {
        self.next.get()
    }

    fn is_over(&self, left: Duration) -> bool {
        if left.is_zero() {
            return true;
        }
        self.next.set(Some(self.next.get().map_or(left, |next| next.min(left))));
        false
    }
}
