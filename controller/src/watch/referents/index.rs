//! Who refers to what, and which version of it is the newest that anybody saw: a reader by its GET or the watch by an event.
//! Only what is referred to has an entry. Pure memory.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{ReferentKey, ReferentKind};
use crate::watch::ObjectKey;

/// A `resourceVersion`: those of one referent grow, also when it is deleted and created again (KEP-5504). 0 is older than all.
pub type Version = u128;

/// The referents of the objects of one kind.
#[derive(Debug, Default)]
pub struct ReferentIndex(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    entries: HashMap<ReferentKey, Entry>,
    of_objects: HashMap<ObjectKey, HashSet<ReferentKey>>,
    secrets: Listing,
    accounts: Listing,
}

/// Where the watch of one kind stands.
#[derive(Debug, Default)]
struct Listing {
    /// Counts the lists that were begun.
    round: u64,
    /// The list was read whole, and the watch goes on from it.
    is_complete: bool,
}

#[derive(Debug, Default)]
struct Entry {
    dependents: HashSet<ObjectKey>,
    version: Version,
    presence: Presence,
    /// The newest list that has shown it, or that had begun when it got its entry.
    round: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Presence {
    /// Nobody has read it yet.
    #[default]
    Unread,
    Absent,
    Present,
}

impl Inner {
    fn listing(&mut self, kind: ReferentKind) -> &mut Listing {
        match kind {
            ReferentKind::Secret => &mut self.secrets,
            ReferentKind::ServiceAccount => &mut self.accounts,
        }
    }

    fn is_watched(&self) -> bool {
        self.secrets.is_complete && self.accounts.is_complete
    }

    /// Drops what `key` refers to, except for `kept`. Returns what nobody refers to any more.
    fn release(&mut self, object: &ObjectKey, kept: &HashSet<ReferentKey>) -> Vec<ReferentKey> {
        let Some(referents) = self.of_objects.get_mut(object) else {
            return Vec::new();
        };
        let dropped: Vec<_> = referents.extract_if(|referent| !kept.contains(referent)).collect();
        if referents.is_empty() {
            self.of_objects.remove(object);
        }
        let mut orphans = Vec::new();
        for referent in dropped {
            let Some(entry) = self.entries.get_mut(&referent) else {
                continue;
            };
            entry.dependents.remove(object);
            if entry.dependents.is_empty() {
                self.entries.remove(&referent);
                orphans.push(referent);
            }
        }
        orphans
    }
}

impl Entry {
    /// Takes in what an event says. Returns who has to look again: nobody, if a reader was faster or is still reading.
    fn saw(&mut self, version: Version, presence: Presence) -> Vec<ObjectKey> {
        if version <= self.version {
            return Vec::new();
        }
        let was_read = self.presence != Presence::Unread;
        self.version = version;
        self.presence = presence;
        if was_read {
            self.dependents.iter().cloned().collect()
        } else {
            Vec::new()
        }
    }
}

impl ReferentIndex {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `object` refers to `referent` from now on. To be called before it is read, so that no change in between is lost.
    /// Returns the newest version that is known.
    pub fn depend(&self, object: &ObjectKey, referent: &ReferentKey) -> Version {
        let mut inner = self.lock();
        let round = inner.listing(referent.kind).round;
        let entry = inner.entries.entry(referent.clone()).or_insert_with(|| Entry {
            round,
            ..Entry::default()
        });
        let version = entry.version;
        if entry.dependents.insert(object.clone()) {
            let of_object = inner.of_objects.entry(object.clone()).or_default();
            of_object.insert(referent.clone());
        }
        version
    }

    /// `object` refers to nothing but `kept`. Returns what nobody refers to any more.
    pub fn keep_only(&self, object: &ObjectKey, kept: &HashSet<ReferentKey>) -> Vec<ReferentKey> {
        self.lock().release(object, kept)
    }

    /// Whether anybody refers to it.
    pub fn is_referred_to(&self, referent: &ReferentKey) -> bool {
        self.lock().entries.contains_key(referent)
    }

    /// Whether `object` refers to anything.
    pub fn has_referents(&self, object: &ObjectKey) -> bool {
        self.lock().of_objects.contains_key(object)
    }

    /// A GET found `referent` at this version. What is not there is as new as the version that was known before.
    pub fn has_read(&self, referent: &ReferentKey, version: Version, exists: bool) {
        if let Some(entry) = self.lock().entries.get_mut(referent)
            && version >= entry.version
        {
            entry.version = version;
            entry.presence = if exists { Presence::Present } else { Presence::Absent };
        }
    }

    /// Whether a newer version than this one is known.
    pub fn is_outdated(&self, referent: &ReferentKey, version: Version) -> bool {
        let inner = self.lock();
        inner.entries.get(referent).is_some_and(|entry| entry.version > version)
    }

    /// Whether this version is the newest for sure: it is watched, and no event told of another.
    pub fn is_newest(&self, referent: &ReferentKey, version: Version) -> bool {
        let inner = self.lock();
        inner.is_watched()
            && inner
                .entries
                .get(referent)
                .is_some_and(|entry| entry.version <= version)
    }

    /// Whether every change of what is referred to is told.
    pub fn is_watched(&self) -> bool {
        self.lock().is_watched()
    }

    /// A list of this kind begins.
    pub(super) fn list_begins(&self, kind: ReferentKind) {
        let mut inner = self.lock();
        let listing = inner.listing(kind);
        listing.round += 1;
        listing.is_complete = false;
    }

    /// The list shows `referent`. Returns who has to look again.
    pub(super) fn listed(&self, referent: &ReferentKey, version: Version) -> Vec<ObjectKey> {
        let mut inner = self.lock();
        let round = inner.listing(referent.kind).round;
        let Some(entry) = inner.entries.get_mut(referent) else {
            return Vec::new();
        };
        entry.round = round;
        entry.saw(version, Presence::Present)
    }

    /// The list of this kind is complete. Returns who has to look again: what was there and is not listed is gone.
    pub(super) fn list_ends(&self, kind: ReferentKind) -> Vec<Vec<ObjectKey>> {
        let mut inner = self.lock();
        let listing = inner.listing(kind);
        listing.is_complete = true;
        let round = listing.round;
        let entries = inner.entries.iter_mut().filter(|(referent, _)| referent.kind == kind);
        let gone = entries.filter(|(_, entry)| entry.presence == Presence::Present && entry.round < round);
        gone.map(|(_, entry)| entry.saw(entry.version + 1, Presence::Absent))
            .collect()
    }

    /// `referent` was created or changed. Returns who has to look again.
    pub(super) fn changed(&self, referent: &ReferentKey, version: Version) -> Vec<ObjectKey> {
        let mut inner = self.lock();
        let entry = inner.entries.get_mut(referent);
        entry.map_or_else(Vec::new, |entry| entry.saw(version, Presence::Present))
    }

    /// `referent` was deleted. Returns who has to look again.
    pub(super) fn deleted(&self, referent: &ReferentKey, version: Version) -> Vec<ObjectKey> {
        let mut inner = self.lock();
        let entry = inner.entries.get_mut(referent);
        entry.map_or_else(Vec::new, |entry| entry.saw(version, Presence::Absent))
    }

    /// The watch ended: nothing is known to be the newest until it is complete again.
    pub(super) fn lost(&self) {
        let mut inner = self.lock();
        inner.secrets.is_complete = false;
        inner.accounts.is_complete = false;
    }
}

#[cfg(test)]
mod tests;
