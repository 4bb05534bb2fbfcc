//! What a pass begins with: whose directory it is, which old files go, and whether the artifact is still good.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::{
    directory::facts,
    disk::{is_absent, sha256_of},
    error::StorageError,
    key::ObjectKey,
    record::{Record, StoredFile},
    slots::{Current, Slot},
    storage::{Inner, Loss, Standing},
};

/// A file whose size and time are as recorded is hashed again after this long, against silent damage.
const REHASH_AFTER: SignedDuration = SignedDuration::from_hours(24);

impl Inner {
    pub(super) fn begin_pass(&self, key: &ObjectKey, uid: &str, now: Timestamp) -> Result<Standing, StorageError> {
        self.slots.with(key, |slot| {
            if slot.offer().owner.as_deref() == Some(uid) {
                self.collect(key, slot, now)?;
                self.verify(key, slot, now)
            } else {
                self.adopt(key, uid, slot, now)
            }
        })
    }

    /// The artifact of `uid`, if neither it nor the object's retained files ask for any work.
    pub(super) fn at_rest(&self, key: &ObjectKey, uid: &str, now: Timestamp) -> Option<Arc<Record>> {
        let slot = self.slots.find(key)?;
        let record = {
            let offer = slot.offer();
            let current = offer.current.as_ref()?;
            let is_settled = offer.owner.as_deref() == Some(uid) && offer.retained.is_empty();
            (is_settled && is_recent(current.hashed_at, now)).then(|| Arc::clone(&current.record))?
        };
        let there = self.disk.root.stat(&record.path).ok()?;
        (there.size == record.file.size && there.mtime == record.file.mtime).then_some(record)
    }

    /// First pass of this process for the key, or the first of another UID: trusts nothing but a record of that UID.
    fn adopt(&self, key: &ObjectKey, uid: &str, slot: &Slot, now: Timestamp) -> Result<Standing, StorageError> {
        slot.clear();
        let Some(record) = self.disk.load(key)?.filter(|record| record.binding.uid == uid) else {
            self.disk.wipe(key)?;
            slot.offer_mut().owner = Some(uid.into());
            return Ok(Standing::Absent);
        };
        self.disk.remove_strangers(key, &[&record.file.name])?;
        self.disk.link_latest(key, &record.file.name);
        let standing = self.rehash(key, slot, Arc::new(record), now)?;
        slot.offer_mut().owner = Some(uid.into());
        Ok(standing)
    }

    /// One `stat`, and a hash if it or the time calls for one.
    fn verify(&self, key: &ObjectKey, slot: &Slot, now: Timestamp) -> Result<Standing, StorageError> {
        let known = slot
            .offer()
            .current
            .as_ref()
            .map(|current| (Arc::clone(&current.record), current.hashed_at));
        let Some((record, hashed_at)) = known else {
            return Ok(Standing::Absent);
        };
        match self.disk.root.stat(&record.path) {
            Ok(there) if there.size == record.file.size && there.mtime == record.file.mtime => {
                if is_recent(hashed_at, now) {
                    return Ok(Standing::Stored(record));
                }
                self.rehash(key, slot, record, now)
            }
            Ok(_) => self.rehash(key, slot, record, now),
            Err(error) if is_absent(&error) => Ok(lose(slot, record, Loss::Missing)),
            Err(source) => Err(self.disk.stat_failed(&record.path, source)),
        }
    }

    /// Offers the record's file if its file has the recorded digest.
    fn rehash(
        &self,
        key: &ObjectKey,
        slot: &Slot,
        record: Arc<Record>,
        now: Timestamp,
    ) -> Result<Standing, StorageError> {
        let mut file = match self
            .disk
            .directory(key)
            .and_then(|directory| directory.open_file(&record.file.name))
        {
            Ok(file) => file,
            Err(error) if is_absent(&error) => return Ok(lose(slot, record, Loss::Missing)),
            Err(source) => return Err(self.disk.failed("open", &record.path, source)),
        };
        let read_failed = |source| self.disk.failed("read", &record.path, source);
        let there = facts(&file).map_err(read_failed)?;
        if there.size != record.file.size || sha256_of(&mut file).map_err(read_failed)? != record.file.digest {
            return Ok(lose(slot, record, Loss::Damaged));
        }
        let record = if there.mtime == record.file.mtime {
            record
        } else {
            // Touched or restored, but whole: from here on this is its time.
            let mut touched = Record::clone(&record);
            touched.file.mtime = there.mtime;
            self.replace_record(key, &touched)?;
            Arc::new(touched)
        };
        slot.offer_mut().current = Some(Current {
            record: Arc::clone(&record),
            hashed_at: now,
        });
        Ok(Standing::Stored(record))
    }

    /// Drops retained files that are older than allowed or too many.
    fn collect(&self, key: &ObjectKey, slot: &Slot, now: Timestamp) -> Result<(), StorageError> {
        if slot.offer().retained.is_empty() {
            return Ok(());
        }
        let ttl = SignedDuration::try_from(self.config.retention_ttl).unwrap_or(SignedDuration::MAX);
        let room = self.config.retention_records.saturating_sub(1);
        let mut position = 0;
        let is_due = |file: &mut StoredFile| {
            position += 1;
            // A file of the future was written before the clock went back: its time would not come for as long.
            position > room || now.duration_since(file.mtime).abs() > ttl
        };
        let due: Vec<StoredFile> = slot.offer_mut().retained.extract_if(.., is_due).collect();
        due.iter().try_for_each(|file| self.disk.remove_file(key, &file.name))
    }
}

/// Whether a file hashed at that time need not be hashed again. A clock that went back makes no hash younger.
fn is_recent(hashed_at: Timestamp, now: Timestamp) -> bool {
    let age = now.duration_since(hashed_at);
    age >= SignedDuration::ZERO && age < REHASH_AFTER
}

fn lose(slot: &Slot, record: Arc<Record>, loss: Loss) -> Standing {
    slot.offer_mut().current = None;
    tracing::warn!(path = record.path, "stored artifact {loss}");
    Standing::Lost(record, loss)
}
