//! The ring's transitions. Every event is handled alike: take in what it says, plan the state that should be stored, ask
//! for a write if it differs from what is stored, and after the acknowledgement publish and sign what was written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::event::{Action, Clocks, Event, Notice, SigningSet, StoreWrite};
use super::held::Held;
use super::plan::{self, Candidates, Step};
use super::state::{RingPolicy, RingState};
use super::stored::{StateError, StoredKeys, StoredState, is_id};
use crate::documents::Documents;

/// The key ring of one process.
#[derive(Debug)]
pub struct KeyRing {
    policy: RingPolicy,
    /// What the state Secret holds, as far as this process knows.
    stored: RingState,
    documents: Option<Arc<Documents>>,
    /// What the ring's Secret holds.
    held: Held,
    pending: Option<Pending>,
    candidates: Candidates,
    /// When this process first knew a key as retired, by the monotonic clock.
    retired_since: BTreeMap<String, Duration>,
    signing: Option<Arc<SigningSet>>,
    writes: u64,
    /// What was told last while nothing changed; it is not repeated with every tick.
    told: Vec<Notice>,
}

/// What becomes true when the write is acknowledged.
#[derive(Debug)]
struct Pending {
    write: u64,
    state: RingState,
    documents: Arc<Documents>,
    held: Held,
    notices: Vec<Notice>,
}

impl KeyRing {
    /// An empty ring: nothing is stored.
    pub fn new(policy: RingPolicy) -> Self {
        Self {
            policy,
            stored: RingState::default(),
            documents: None,
            held: Held::default(),
            pending: None,
            candidates: Candidates::default(),
            retired_since: BTreeMap::new(),
            signing: None,
            writes: 0,
            told: Vec::new(),
        }
    }

    /// A ring that goes on from what is stored. Refused when it belongs to another trust domain, or when a private key
    /// does not belong to its entry; the caller then starts with an empty ring.
    ///
    /// The first event publishes and signs nothing that is not stored; until then [`KeyRing::documents`] are served.
    pub fn restore(
        policy: RingPolicy,
        state: StoredState,
        keys: &StoredKeys,
        clocks: Clocks,
    ) -> Result<Self, StateError> {
        if state.trust_domain != policy.trust_domain {
            return Err(StateError::TrustDomain(state.trust_domain.to_string()));
        }
        let mut ring = Self::new(policy);
        ring.held = Held::restore(&state.ring, keys)?;
        ring.documents = Some(Arc::new(state.documents));
        ring.stored = state.ring;
        ring.note_retired(clocks);
        Ok(ring)
    }

    /// The stored state.
    pub fn state(&self) -> &RingState {
        &self.stored
    }

    /// The documents that belong to the stored state; `None` before the first write.
    pub fn documents(&self) -> Option<&Arc<Documents>> {
        self.documents.as_ref()
    }

    /// Handles one event and returns what is to be done, in order.
    pub fn handle(&mut self, event: Event, clocks: Clocks) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Secret { uses, outcome } => {
                actions.extend(
                    self.candidates
                        .take(uses, outcome, self.policy.issuer.is_some())
                        .into_iter()
                        .map(Action::Notify),
                );
            }
            Event::Revoked(ids) => self.candidates.revoked.extend(ids.into_iter().filter(|id| is_id(id))),
            Event::Stored { write } => self.acknowledge(write, clocks, &mut actions),
            Event::StoreFailed { write } => {
                self.pending.take_if(|pending| pending.write == write);
                self.sign(&mut actions);
                return actions;
            }
            Event::Tick => {}
        }
        if self.pending.is_none() {
            self.plan(clocks, &mut actions);
        }
        if self.pending.is_none() {
            self.sign(&mut actions);
        }
        actions
    }

    /// Tells who signs, if that has changed. While a write is under way nothing does.
    fn sign(&mut self, actions: &mut Vec<Action>) {
        let set = self.held.signing_set(&self.stored, &self.candidates);
        if self.signing.as_ref().is_none_or(|before| !before.is_same(&set)) {
            let set = Arc::new(set);
            self.signing = Some(Arc::clone(&set));
            actions.push(Action::Sign(set));
        }
    }

    /// How long until an [`Event::Tick`] can change anything; `None` when only other events can.
    pub fn next_due(&self, clocks: Clocks) -> Option<Duration> {
        let retired = self.stored.retired(&self.policy).map(|(id, at, retention)| {
            let seen = self.retired_since.get(id).copied().unwrap_or(clocks.monotonic);
            let by_monotonic = (seen + retention).saturating_sub(clocks.monotonic);
            by_monotonic.max(retention.saturating_sub(until(at, clocks.wall)))
        });
        let start = self.candidates.x509.iter().map(|next| next.authority.not_before());
        retired
            .chain(
                start
                    .filter(|start| *start > clocks.wall)
                    .map(|start| until(clocks.wall, start)),
            )
            .min()
    }

    /// A write is acknowledged: what it holds is published, then it signs.
    fn acknowledge(&mut self, write: u64, clocks: Clocks, actions: &mut Vec<Action>) {
        let Some(pending) = self.pending.take_if(|pending| pending.write == write) else {
            return;
        };
        self.stored = pending.state;
        self.held = pending.held;
        if self.documents.as_ref() != Some(&pending.documents) {
            actions.push(Action::Publish(Arc::clone(&pending.documents)));
            self.documents = Some(pending.documents);
        }
        self.note_retired(clocks);
        actions.extend(pending.notices.into_iter().map(Action::Notify));
    }

    /// Asks for a write, if the state, its documents or its keys should be others than those stored.
    fn plan(&mut self, clocks: Clocks, actions: &mut Vec<Action>) {
        let mut notices = Vec::new();
        let retired_for = |id: &str, retention: Duration| {
            self.retired_since
                .get(id)
                .is_some_and(|since| clocks.monotonic.saturating_sub(*since) >= retention)
        };
        let step = Step {
            policy: &self.policy,
            wall: clocks.wall,
            retired_for: &retired_for,
        };
        let state = plan::next(&self.stored, &self.candidates, &step, &mut notices);
        if self.documents.is_none() && state.is_empty() {
            return self.tell(notices, actions);
        }
        let documents = match state.documents(&self.policy) {
            Ok(documents) => Arc::new(documents),
            Err(error) => return self.tell(vec![Notice::Documents(error)], actions),
        };
        let held = self.held.planned(&state, &self.candidates);
        if state == self.stored && self.documents.as_ref() == Some(&documents) && held.ids() == self.held.ids() {
            return self.tell(notices, actions);
        }
        self.writes += 1;
        actions.push(Action::Store(Box::new(StoreWrite {
            id: self.writes,
            state: StoredState {
                trust_domain: self.policy.trust_domain.clone(),
                issuer: self.policy.issuer.clone(),
                overlap: self.policy.jwt_overlap,
                ring: state.clone(),
                documents: Documents::clone(&documents),
            },
            keys: held.stored_keys(),
        })));
        self.pending = Some(Pending {
            write: self.writes,
            state,
            documents,
            held,
            notices,
        });
    }

    /// Tells news that no write belongs to, once.
    fn tell(&mut self, notices: Vec<Notice>, actions: &mut Vec<Action>) {
        actions.extend(
            notices
                .iter()
                .filter(|notice| !self.told.contains(notice))
                .cloned()
                .map(Action::Notify),
        );
        self.told = notices;
    }

    fn note_retired(&mut self, clocks: Clocks) {
        let retired: Vec<_> = self
            .stored
            .retired(&self.policy)
            .map(|(id, ..)| id.to_owned())
            .collect();
        self.retired_since.retain(|id, _| retired.contains(id));
        for id in retired {
            self.retired_since.entry(id).or_insert(clocks.monotonic);
        }
    }
}

/// The time from one moment to a later one; zero if it is not later.
fn until(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}
