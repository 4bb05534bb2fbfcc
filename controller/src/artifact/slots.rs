//! The index in memory: what is known of each object and which of its files may be served.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use jiff::Timestamp;

use super::{
    key::ObjectKey,
    record::{Record, StoredFile},
};

/// All objects that passed or are passing.
#[derive(Debug, Default)]
pub(super) struct Slots {
    map: RwLock<HashMap<ObjectKey, Arc<Slot>>>,
}

/// What is known of one object. `work` is held while its directory is changed or hashed, `offer` only for moments.
#[derive(Debug, Default)]
pub(super) struct Slot {
    work: Mutex<()>,
    offer: RwLock<Offer>,
}

/// What an object has on offer.
#[derive(Debug, Default)]
pub(super) struct Offer {
    /// The slot has left the index: whoever waited for it looks again.
    retired: bool,
    /// The UID whose directory this is, once a pass has said so.
    pub(super) owner: Option<Box<str>>,
    pub(super) current: Option<Current>,
    /// Earlier files, newest first.
    pub(super) retained: Vec<StoredFile>,
}

/// The artifact and when its file was last hashed.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) record: Arc<Record>,
    pub(super) hashed_at: Timestamp,
}

impl Slots {
    /// Runs `work` with the object's slot locked against other work on the same object.
    pub(super) fn with<T>(&self, key: &ObjectKey, work: impl FnOnce(&Slot) -> T) -> T {
        loop {
            let slot = self
                .find(key)
                .unwrap_or_else(|| Arc::clone(self.write().entry(key.clone()).or_default()));
            let _guard = slot.work.lock().unwrap_or_else(PoisonError::into_inner);
            if !slot.offer().retired {
                return work(&slot);
            }
        }
    }

    pub(super) fn find(&self, key: &ObjectKey) -> Option<Arc<Slot>> {
        self.read().get(key).map(Arc::clone)
    }

    /// Takes a slot, on whose lock the caller stands, out of the index.
    pub(super) fn retire(&self, key: &ObjectKey, slot: &Slot) {
        let mut map = self.write();
        slot.offer_mut().retired = true;
        map.remove(key);
    }

    pub(super) fn keys(&self) -> Vec<ObjectKey> {
        self.read().keys().cloned().collect()
    }

    pub(super) fn for_each(&self, mut visit: impl FnMut(&Offer)) {
        self.read().values().for_each(|slot| visit(&slot.offer()));
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<ObjectKey, Arc<Slot>>> {
        self.map.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<ObjectKey, Arc<Slot>>> {
        self.map.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    pub(super) fn offer(&self) -> RwLockReadGuard<'_, Offer> {
        self.offer.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn offer_mut(&self) -> RwLockWriteGuard<'_, Offer> {
        self.offer.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops serving anything and forgets the owner.
    pub(super) fn clear(&self) {
        let mut offer = self.offer_mut();
        *offer = Offer {
            retired: offer.retired,
            ..Offer::default()
        };
    }
}

impl Offer {
    /// Every file on offer, the current one first.
    pub(super) fn files(&self) -> impl Iterator<Item = &StoredFile> {
        self.current
            .iter()
            .map(|current| &current.record.file)
            .chain(&self.retained)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_waited_for_a_retired_slot_gets_a_new_one() {
        let slots = Arc::new(Slots::default());
        let key = ObjectKey::new("ns", "name").unwrap();
        let (entered, wait_entered) = std::sync::mpsc::channel();
        let waiting = slots.with(&key, |slot| {
            slot.offer_mut().owner = Some("old".into());
            let (slots, key) = (Arc::clone(&slots), key.clone());
            let waiting = std::thread::spawn(move || {
                entered.send(()).unwrap();
                slots.with(&key, |slot| slot.offer().owner.clone())
            });
            wait_entered.recv().unwrap();
            waiting
        });
        slots.with(&key, |slot| slots.retire(&key, slot));
        // Before or after the retirement, never the old owner through a slot that left the index.
        drop(waiting.join().unwrap());
        assert!(slots.with(&key, |slot| slot.offer().owner.is_none()));
    }
}
