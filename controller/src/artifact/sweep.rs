//! What goes when objects go: on their deletion, and by a walk over the directory that finds what was missed.

use super::{
    disk::is_absent,
    error::StorageError,
    key::ObjectKey,
    slots::Slot,
    storage::{Inner, SweepReport},
};

impl Inner {
    pub(super) fn remove(&self, key: &ObjectKey, uid: &str) -> Result<bool, StorageError> {
        self.slots.with(key, |slot| {
            let owner = match slot.offer().owner.clone() {
                Some(owner) => Some(owner),
                None => self.disk.load(key)?.map(|record| record.binding.uid.into_boxed_str()),
            };
            if owner.is_some_and(|owner| *owner != *uid) {
                return Ok(false);
            }
            self.retire(key, slot)?;
            Ok(true)
        })
    }

    /// Goes on after a failure, so that one directory that cannot be removed does not keep the others; tells the first.
    pub(super) fn sweep(&self, live: &dyn Fn(&ObjectKey) -> Option<String>) -> Result<SweepReport, StorageError> {
        let mut report = SweepReport::default();
        let mut outcome = Ok(());
        for key in self.stored_keys(&mut report)? {
            let swept = self
                .slots
                .with(&key, |slot| self.sweep_one(&key, slot, live, &mut report));
            outcome = outcome.and(swept);
        }
        // Objects that went without ever having stored anything.
        for key in self.slots.keys() {
            let retired = self.slots.with(&key, |slot| {
                if live(&key).is_none() {
                    self.retire(&key, slot)
                } else {
                    Ok(())
                }
            });
            outcome = outcome.and(retired);
        }
        outcome.map(|()| report)
    }

    pub(super) fn release(
        &self,
        key: &ObjectKey,
        live: &dyn Fn(&ObjectKey) -> Option<String>,
    ) -> Result<(), StorageError> {
        self.slots
            .with(key, |slot| self.sweep_one(key, slot, live, &mut SweepReport::default()))
    }

    pub(super) fn unclaimed(
        &self,
        live: &dyn Fn(&ObjectKey) -> Option<String>,
    ) -> Result<Vec<(ObjectKey, String)>, StorageError> {
        let mut unclaimed = Vec::new();
        for key in self.stored_keys(&mut SweepReport::default())? {
            if live(&key).is_none()
                && let Some(record) = self.disk.load(&key)?
            {
                unclaimed.push((key, record.binding.uid));
            }
        }
        Ok(unclaimed)
    }

    /// Stops serving, wipes, and takes the slot out of the index.
    fn retire(&self, key: &ObjectKey, slot: &Slot) -> Result<(), StorageError> {
        slot.clear();
        self.disk.wipe(key)?;
        self.slots.retire(key, slot);
        Ok(())
    }

    /// The keys that have a directory. What stands between them under impossible names is removed.
    fn stored_keys(&self, report: &mut SweepReport) -> Result<Vec<ObjectKey>, StorageError> {
        let failed = |source| self.disk.failed("sweep", self.disk.kind_folder(), source);
        let mut keys = Vec::new();
        let kind = match self.disk.root.open(self.disk.kind_folder()) {
            Ok(kind) => kind,
            Err(error) if is_absent(&error) => return Ok(keys),
            Err(error) => return Err(failed(error)),
        };
        for namespace in kind.names().map_err(failed)? {
            let directory = match kind.open(&namespace) {
                Ok(directory) => directory,
                Err(error) if is_absent(&error) => {
                    kind.remove(&namespace).map_err(failed)?;
                    report.files += 1;
                    continue;
                }
                Err(error) => return Err(failed(error)),
            };
            for name in directory.names().map_err(failed)? {
                let key = namespace
                    .to_str()
                    .zip(name.to_str())
                    .and_then(|(ns, name)| ObjectKey::new(ns, name).ok());
                if let Some(key) = key {
                    keys.push(key);
                } else {
                    directory.remove(&name).map_err(failed)?;
                    report.files += 1;
                }
            }
            kind.remove_if_empty(&namespace).map_err(failed)?;
        }
        Ok(keys)
    }

    fn sweep_one(
        &self,
        key: &ObjectKey,
        slot: &Slot,
        live: &dyn Fn(&ObjectKey) -> Option<String>,
        report: &mut SweepReport,
    ) -> Result<(), StorageError> {
        let Some(uid) = live(key) else {
            report.objects += 1;
            return self.retire(key, slot);
        };
        let (owner, known): (Option<Box<str>>, Vec<String>) = {
            let offer = slot.offer();
            (
                offer.owner.clone(),
                offer.files().map(|file| file.name.clone()).collect(),
            )
        };
        let is_foreign = match owner {
            Some(owner) => *owner != *uid,
            None => self.disk.load(key)?.is_none_or(|record| record.binding.uid != uid),
        };
        if is_foreign {
            // The new object's first pass is still to come; until then the directory holds what is another's.
            slot.clear();
            self.disk.wipe(key)?;
            report.objects += 1;
        } else if slot.offer().owner.is_some() {
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            report.files += self.disk.remove_strangers(key, &known)?;
        }
        Ok(())
    }
}
