//! What the two Secrets hold, and what a ring makes of it: a ring that does not lead adopts it, unless its memory is
//! better; one that leads writes its memory over it. Revocations are kept in either case.

use std::collections::BTreeSet;

use super::event::{Action, Clocks, Found};
use super::held::Held;
use super::machine::KeyRing;
use super::notice::Notice;
use super::stored::{Refused, StateError, StoredState};
use crate::documents::Documents;

/// The content of the two Secrets, as far as it is known.
#[derive(Debug)]
pub(super) struct Disk {
    state: Result<Option<StoredState>, Refused>,
    /// The ids of the private keys there.
    keys: BTreeSet<String>,
}

impl Disk {
    pub(super) fn written(state: StoredState, held: &Held) -> Self {
        Self {
            state: Ok(Some(state)),
            keys: held.key_ids(),
        }
    }

    pub(super) fn is_refused(&self) -> bool {
        self.state.is_err()
    }

    /// Whether its sequence stands for a content that is known.
    pub(super) fn is_readable(&self) -> bool {
        matches!(self.state, Ok(Some(_)))
    }

    /// The documents and their sequence.
    pub(super) fn published(&self) -> Option<(u64, &Documents)> {
        let state = self.state.as_ref().ok()?.as_ref()?;
        Some((state.ring.sequence, &state.documents))
    }

    pub(super) fn sequence(&self) -> u64 {
        match &self.state {
            Ok(state) => state.as_ref().map_or(0, |state| state.ring.sequence),
            Err(refused) => refused.sequence,
        }
    }

    pub(super) fn revision(&self) -> u64 {
        match &self.state {
            Ok(state) => state.as_ref().map_or(0, |state| state.revision),
            Err(refused) => refused.revision,
        }
    }

    /// Whether it is all there already, whichever write it was.
    pub(super) fn holds(&self, state: &StoredState, keys: &BTreeSet<String>) -> bool {
        let same = |found: &StoredState| {
            let of = |state: &StoredState| (state.trust_domain.clone(), state.issuer.clone(), state.overlap);
            of(found) == of(state) && found.ring == state.ring && found.documents == state.documents
        };
        matches!(&self.state, Ok(Some(found)) if same(found)) && self.keys == *keys
    }
}

impl KeyRing {
    /// Takes in what the Secrets hold. While a write is under way its answer comes first.
    pub(super) fn find(&mut self, found: Box<Found>, clocks: Clocks, actions: &mut Vec<Action>) {
        if self.pending.is_some() {
            self.deferred = Some(found);
            return;
        }
        let Found { state, keys } = *found;
        let state = state.and_then(|state| match state {
            Some(state) if state.trust_domain != self.policy.trust_domain => Err(Refused::foreign(state)),
            state => Ok(state),
        });
        let revoked = match &state {
            Ok(state) => state.as_ref().map(|state| &state.ring.revoked),
            Err(refused) => Some(&refused.revoked),
        };
        self.candidates.revoked.extend(revoked.into_iter().flatten().cloned());
        if let Ok(Some(found)) = &state {
            // The failed write was stored after all.
            if let Some(late) = self.unsure.take_if(|late| late.state == *found) {
                self.acknowledge(late, clocks, actions);
            }
        }
        self.unsure = None;
        let mut notices = Vec::new();
        match &state {
            Ok(Some(found)) if self.adopts(found) => {
                let (held, errors) = Held::restore(&found.ring, &keys, &self.memory.held);
                notices.extend(errors.into_iter().map(Notice::PrivateKey));
                self.take_on(found.clone(), held, clocks, actions);
            }
            _ => {
                let (held, errors) = Held::restore(&self.memory.state, &keys, &self.memory.held);
                notices.extend(errors.into_iter().map(Notice::PrivateKey));
                self.memory.held = held;
            }
        }
        let keys = self.memory.held.found_ids(&keys);
        let disk = Disk { state, keys };
        notices.extend(self.objection(&disk));
        self.disk = Some(disk);
        let news = notices.iter().filter(|notice| !self.told_found.contains(notice));
        actions.extend(news.cloned().map(Action::Notify));
        self.told_found = notices;
    }

    /// Whether the found state takes the place of memory.
    fn adopts(&self, found: &StoredState) -> bool {
        self.memory.documents.is_none() || (!self.leading && found.revision >= self.memory.revision)
    }

    /// What is to be told of a found state.
    fn objection(&self, disk: &Disk) -> Option<Notice> {
        match &disk.state {
            Err(refused) => Some(Notice::StateRefused(refused.error.clone())),
            _ if !self.leading || self.memory.documents.is_none() => None,
            Ok(None) => Some(Notice::StateMissing),
            Ok(Some(found)) => (found.ring != self.memory.state).then_some(Notice::StateOverwritten),
        }
    }

    /// Begins or ends to lead. What is known as stored has to be waited for again: another process may have written it.
    pub(super) fn lead(&mut self, leading: bool, clocks: Clocks, actions: &mut Vec<Action>) {
        if leading == self.leading {
            return;
        }
        self.leading = leading;
        if leading {
            self.since = super::timer::Since::default();
            self.since.note(&self.memory.state, clocks.monotonic);
            let objection = self.disk.as_ref().and_then(|disk| self.objection(disk));
            let news = objection.filter(|notice| !self.told_found.contains(notice));
            actions.extend(news.into_iter().map(Action::Notify));
        } else {
            // Whether it was stored, the next finding says.
            (self.pending, self.unsure) = (None, None);
            if let Some(found) = self.deferred.take() {
                self.find(found, clocks, actions);
            }
        }
    }
}

impl Refused {
    /// A state of another trust domain.
    fn foreign(state: StoredState) -> Self {
        Self {
            error: StateError::TrustDomain(state.trust_domain.to_string()),
            revoked: state.ring.revoked,
            sequence: state.ring.sequence,
            revision: state.revision,
        }
    }
}
