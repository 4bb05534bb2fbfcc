//! How a finished file becomes an object's artifact, and its record the object's record.

use std::{io, sync::Arc};

use jiff::Timestamp;

use super::{
    directory::Directory,
    disk::RECORD,
    error::StorageError,
    key::ObjectKey,
    record::{Draft, Record, StoredFile},
    slots::{Current, Offer, Slot},
    storage::Inner,
};

impl Inner {
    /// Moves the staged file called `upload` into the object's directory and on offer; `file` tells of its bytes.
    pub(super) fn commit(
        &self,
        key: &ObjectKey,
        upload: &str,
        draft: Draft,
        file: StoredFile,
        now: Timestamp,
    ) -> Result<Arc<Record>, StorageError> {
        let path = self.disk.path(key, &file.name);
        self.slots.with(key, |slot| {
            if slot.offer().owner.as_deref() != Some(draft.binding.uid.as_str()) {
                return Err(StorageError::Superseded);
            }
            let record = Arc::new(Record::new(draft, file, path, now));
            let directory = self.disk.create_directory(key)?;
            let sidecar = self.disk.stage_record(&record)?;
            if let Err(source) = self.publish(slot, &directory, upload, &sidecar, &record) {
                self.disk.discard(&sidecar);
                return Err(self.disk.failed("move", &record.path, source));
            }
            self.disk.link_latest(key, &record.file.name);
            Ok(record)
        })
    }

    /// Both renames and the change of the offer happen under one lock, so that a reader finds a file and its facts, or
    /// neither. If the record cannot be moved, the earlier artifact stays, unless its file was just replaced.
    fn publish(
        &self,
        slot: &Slot,
        directory: &Directory,
        upload: &str,
        sidecar: &str,
        record: &Arc<Record>,
    ) -> io::Result<()> {
        let name = record.file.name.as_str();
        let mut offer = slot.offer_mut();
        self.disk.staging.rename(upload, directory, name)?;
        withdraw(&mut offer, name);
        self.disk.staging.rename(sidecar, directory, RECORD)?;
        let current = Current {
            record: Arc::clone(record),
            hashed_at: record.last_update_time,
        };
        if let Some(before) = offer.current.replace(current) {
            offer.retained.insert(0, before.record.file.clone());
        }
        Ok(())
    }

    pub(super) fn confirm(&self, key: &ObjectKey, draft: &Draft) -> Result<Option<Arc<Record>>, StorageError> {
        self.slots.with(key, |slot| {
            let held = {
                let offer = slot.offer();
                let is_owner = offer.owner.as_deref() == Some(draft.binding.uid.as_str());
                let current = offer.current.as_ref().filter(|_| is_owner);
                current.map(|current| (Arc::clone(&current.record), current.hashed_at))
            };
            let Some((held, hashed_at)) = held.filter(|(held, _)| held.revision == draft.revision) else {
                return Ok(None);
            };
            let mut record = Record::clone(&held);
            record.binding.clone_from(&draft.binding);
            record.scan.clone_from(&draft.scan);
            if record.file_name()? != record.file.name {
                return Ok(None);
            }
            self.replace_record(key, &record)?;
            let record = Arc::new(record);
            slot.offer_mut().current = Some(Current {
                record: Arc::clone(&record),
                hashed_at,
            });
            Ok(Some(record))
        })
    }

    /// Writes a record anew and moves it into place.
    pub(super) fn replace_record(&self, key: &ObjectKey, record: &Record) -> Result<(), StorageError> {
        let directory = self.disk.create_directory(key)?;
        let sidecar = self.disk.stage_record(record)?;
        self.disk
            .staging
            .rename(&sidecar, &directory, RECORD)
            .map_err(|source| {
                self.disk.discard(&sidecar);
                self.disk.failed("move the record of", &record.path, source)
            })
    }
}

/// Withdraws a file whose bytes are no longer what the offer says.
fn withdraw(offer: &mut Offer, name: &str) {
    offer.retained.retain(|file| file.name != name);
    offer.current.take_if(|current| current.record.file.name == name);
}
