//! The ring's transitions. Every event is handled alike: take in what it says, plan the state that should be stored, ask
//! for a write if it differs from what is stored, and after the acknowledgement publish and sign what was written.

use std::sync::Arc;
use std::time::Duration;

use super::candidates::Candidates;
use super::disk::Disk;
use super::event::{Action, Clocks, Event, Found, SigningSet, StoreWrite};
use super::held::Held;
use super::notice::Notice;
use super::plan::{self, Planned, Step};
use super::state::{RingPolicy, RingState};
use super::stored::{StoredState, is_id};
use super::timer::{Since, Timer};
use crate::documents::{Documents, DocumentsError};

/// A failed write is offered again with the next news, or when this has passed.
const RETRY: Duration = Duration::from_secs(5);

/// The key ring of one process.
#[derive(Debug)]
pub struct KeyRing {
    pub(super) policy: RingPolicy,
    pub(super) leading: bool,
    pub(super) skew: bool,
    /// What this process publishes and signs by: what it wrote or adopted last.
    pub(super) memory: Memory,
    /// What the Secrets hold, as far as this process knows; none before it was told.
    pub(super) disk: Option<Disk>,
    pub(super) pending: Option<Pending>,
    /// A write that failed, though it may have been stored.
    pub(super) unsure: Option<Pending>,
    /// Found while a write was under way.
    pub(super) deferred: Option<Box<Found>>,
    retry_at: Option<Duration>,
    pub(super) candidates: Candidates,
    pub(super) since: Since,
    signing: Option<Arc<SigningSet>>,
    writes: u64,
    /// The highest revision that was offered.
    offered: u64,
    /// The conditions that were told last; they are not repeated while they last.
    told: Vec<Notice>,
    /// What was told of the last finding.
    pub(super) told_found: Vec<Notice>,
}

/// What a process goes on with when nothing can be read.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) state: RingState,
    pub(super) revision: u64,
    /// None as long as there is nothing to publish.
    pub(super) documents: Option<Arc<Documents>>,
    pub(super) held: Held,
}

/// What becomes true when the write is acknowledged.
#[derive(Debug)]
pub(super) struct Pending {
    write: u64,
    pub(super) state: StoredState,
    held: Held,
    notices: Vec<Notice>,
}

impl KeyRing {
    /// An empty ring that does not lead: it waits for [`Event::Found`] and [`Event::Leading`].
    pub fn new(policy: RingPolicy) -> Self {
        Self {
            policy,
            leading: false,
            skew: false,
            memory: Memory::default(),
            disk: None,
            pending: None,
            unsure: None,
            deferred: None,
            retry_at: None,
            candidates: Candidates::default(),
            since: Since::default(),
            signing: None,
            writes: 0,
            offered: 0,
            told: Vec::new(),
            told_found: Vec::new(),
        }
    }

    /// The state that this process publishes and signs by.
    pub fn state(&self) -> &RingState {
        &self.memory.state
    }

    /// The documents that belong to the state; `None` before there is one.
    pub fn documents(&self) -> Option<&Arc<Documents>> {
        self.memory.documents.as_ref()
    }

    /// The revision of the state; 0 before there is one.
    pub fn revision(&self) -> u64 {
        self.memory.revision
    }

    /// Handles one event and returns what is to be done, in order; a write is always the last.
    pub fn handle(&mut self, event: Event, clocks: Clocks) -> Vec<Action> {
        let mut actions = Vec::new();
        let may_write = match event {
            Event::Secret { uses, outcome } => {
                let mints_tokens = self.policy.issuer.is_some();
                let notices = self.candidates.take(uses, outcome, mints_tokens);
                actions.extend(notices.into_iter().map(Action::Notify));
                true
            }
            Event::Revoked(ids) => {
                self.candidates.revoked.extend(ids.into_iter().filter(|id| is_id(id)));
                true
            }
            Event::Activated(ids) => {
                self.candidates.activated = ids;
                true
            }
            Event::Leading(leading) => {
                self.lead(leading, clocks, &mut actions);
                true
            }
            Event::Found(found) => {
                self.find(found, clocks, &mut actions);
                true
            }
            Event::ClockSkew(skew) => {
                actions.extend((skew && !self.skew).then_some(Action::Notify(Notice::ClockSkew)));
                self.skew = skew;
                true
            }
            Event::Stored { write } => self.answered(write, true, clocks, &mut actions),
            Event::StoreFailed { write } => self.answered(write, false, clocks, &mut actions),
            Event::Tick => self.retry_at.is_none_or(|at| clocks.monotonic >= at),
        };
        // First, so that a revoked key stops without waiting for a write.
        self.sign(&mut actions);
        if may_write {
            self.write(clocks, &mut actions);
        }
        actions
    }

    /// How long until an [`Event::Tick`] can change anything, as long as no clock is set; `None` when only other events
    /// can.
    pub fn next_due(&self, clocks: Clocks) -> Option<Duration> {
        if !self.leading || self.pending.is_some() || self.disk.is_none() {
            return None;
        }
        let timer = Timer::new(&self.since, clocks);
        self.planned(&timer);
        let retry = self.retry_at.map(|at| at.saturating_sub(clocks.monotonic));
        timer.next().into_iter().chain(retry).min()
    }

    /// A write is answered; whether the next one may follow at once.
    fn answered(&mut self, write: u64, stored: bool, clocks: Clocks, actions: &mut Vec<Action>) -> bool {
        let Some(pending) = self.pending.take_if(|pending| pending.write == write) else {
            return false;
        };
        if stored {
            self.acknowledge(pending, clocks, actions);
        } else {
            self.unsure = Some(pending);
            self.retry_at = Some(clocks.monotonic.saturating_add(RETRY));
        }
        let deferred = self.deferred.take();
        let news = stored || deferred.is_some();
        if let Some(found) = deferred {
            self.find(found, clocks, actions);
        }
        news
    }

    /// A write is stored: what it holds is published, then it signs.
    pub(super) fn acknowledge(&mut self, pending: Pending, clocks: Clocks, actions: &mut Vec<Action>) {
        (self.retry_at, self.unsure) = (None, None);
        self.told_found.clear();
        self.disk = Some(Disk::written(pending.state.clone(), &pending.held));
        self.take_on(pending.state, pending.held, clocks, actions);
        actions.extend(pending.notices.into_iter().map(Action::Notify));
    }

    /// Goes on with a state that is stored.
    pub(super) fn take_on(&mut self, state: StoredState, held: Held, clocks: Clocks, actions: &mut Vec<Action>) {
        let documents = Arc::new(state.documents);
        if self.memory.documents.as_ref() != Some(&documents) {
            actions.push(Action::Publish(Arc::clone(&documents)));
        }
        self.memory = Memory {
            state: state.ring,
            revision: state.revision,
            documents: Some(documents),
            held,
        };
        self.since.note(&self.memory.state, clocks.monotonic);
    }

    /// Tells who signs, if that has changed.
    fn sign(&mut self, actions: &mut Vec<Action>) {
        let set = self.memory.held.signing_set(&self.memory.state, &self.candidates);
        if self.signing.as_ref().is_none_or(|before| !before.is_same(&set)) {
            let set = Arc::new(set);
            self.signing = Some(Arc::clone(&set));
            actions.push(Action::Sign(set));
        }
    }

    fn planned(&self, timer: &Timer<'_>) -> Planned {
        let can_sign = |id: &str| {
            let (jwt, x509) = (&self.candidates.jwt, &self.candidates.x509);
            self.memory.held.contains(id)
                || jwt.as_ref().is_some_and(|next| next.authority.kid() == id)
                || x509.as_ref().is_some_and(|next| next.authority.id() == id)
        };
        let step = Step {
            policy: &self.policy,
            timer,
            frozen: self.skew,
            can_sign: &can_sign,
        };
        plan::next(&self.memory.state, &self.candidates, &step)
    }

    /// Asks for a write, if the state, its documents or its keys should be others than those stored.
    fn write(&mut self, clocks: Clocks, actions: &mut Vec<Action>) {
        if !self.leading || self.pending.is_some() {
            return;
        }
        // A wrong clock may be all that is wrong with a refused state.
        let Some(disk) = self.disk.as_ref().filter(|disk| !(self.skew && disk.is_refused())) else {
            return;
        };
        let timer = Timer::new(&self.since, clocks);
        let Planned {
            mut state,
            notices,
            conditions,
        } = self.planned(&timer);
        if self.memory.documents.is_none() && state.has_no_keys() {
            return self.tell(conditions, actions);
        }
        let documents = match self.number(&mut state, disk, clocks) {
            Ok(documents) => documents,
            Err(error) => return self.tell(vec![Notice::Documents(error)], actions),
        };
        let held = self.memory.held.planned(&state, &self.candidates);
        let keys = held.key_ids();
        let next = StoredState {
            trust_domain: self.policy.trust_domain.clone(),
            issuer: self.policy.issuer.clone(),
            overlap: self.policy.jwt_overlap,
            revision: self.next_revision(disk, clocks),
            ring: state,
            documents,
        };
        let in_memory = next.ring == self.memory.state && keys == self.memory.held.key_ids();
        if in_memory && disk.holds(&next, &keys) {
            self.retry_at = None;
            return self.tell(conditions, actions);
        }
        self.tell(conditions, actions);
        self.writes += 1;
        self.offered = next.revision;
        actions.push(Action::Store(Box::new(StoreWrite {
            id: self.writes,
            state: next.clone(),
            keys: held.stored_keys(),
        })));
        self.pending = Some(Pending {
            write: self.writes,
            state: next,
            held,
            notices,
        });
    }

    /// Numbers a planned state and renders it: the same sequence for the same bundle, else max(previous + 1, Unix
    /// seconds). "Previous" is the highest of what this process published and what is stored.
    fn number(&self, state: &mut RingState, disk: &Disk, clocks: Clocks) -> Result<Documents, DocumentsError> {
        let own = self
            .memory
            .documents
            .as_deref()
            .map(|own| (self.memory.state.sequence, own));
        let top = own.map_or(0, |(sequence, _)| sequence).max(disk.sequence());
        let mut last = own
            .into_iter()
            .chain(disk.published())
            .filter(|(number, _)| *number == top);
        state.sequence = top;
        let documents = state.documents(&self.policy)?;
        let is_top = disk.is_readable() || disk.sequence() < top;
        if top != 0 && is_top && last.all(|(_, last)| last.bundle_json().body == documents.bundle_json().body) {
            return Ok(documents);
        }
        state.sequence = unix_seconds(clocks).max(top.saturating_add(1));
        state.documents(&self.policy)
    }

    fn next_revision(&self, disk: &Disk, clocks: Clocks) -> u64 {
        let last = self.memory.revision.max(disk.revision()).max(self.offered);
        unix_seconds(clocks).max(last.saturating_add(1))
    }

    /// Tells conditions, each once while it lasts.
    fn tell(&mut self, conditions: Vec<Notice>, actions: &mut Vec<Action>) {
        let news = conditions.iter().filter(|notice| !self.told.contains(notice));
        actions.extend(news.cloned().map(Action::Notify));
        self.told = conditions;
    }
}

fn unix_seconds(clocks: Clocks) -> u64 {
    u64::try_from(clocks.wall.as_second()).unwrap_or_default()
}
