//! The storage as its users see it: one current archive per object, and what may be served of it.
//!
//! Files get in through [`Storage::stage`] and a rename; only then does the index in memory name them. After a restart
//! the index is empty and fills as objects pass, each file hashed again first. So whatever a crash left behind, only
//! whole files that a record of the same object UID describes are ever served. All methods block; each says what it
//! costs.

use std::{fs::File, path::PathBuf, sync::Arc, time::Duration};

use jiff::Timestamp;

use super::{
    directory::facts,
    disk::{Disk, LATEST},
    error::StorageError,
    key::ObjectKey,
    record::{Draft, Record},
    slots::Slots,
    staged::Staged,
};

/// How the storage is set up.
#[derive(Debug, Clone)]
pub struct StorageConfig {
    /// `--storage-path`; created (0700) when missing. One process at a time may use it.
    pub root: PathBuf,
    /// What is stored.
    pub contents: Contents,
    /// `--artifact-retention-ttl`: how old a file other than the current one may get.
    pub retention_ttl: Duration,
    /// `--artifact-retention-records`: how many files an object keeps, the current one included.
    pub retention_records: usize,
    /// `--storage-min-free`: percentage of the volume that stays free; 0 disables the check.
    pub min_free_percent: u8,
}

impl StorageConfig {
    /// The documented defaults, for artifacts of OCIRepositories below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            contents: Contents::Artifacts,
            retention_ttl: Duration::from_mins(1),
            retention_records: 2,
            min_free_percent: 10,
        }
    }

    /// The same volume, for the tags of images: nobody fetches them, so that nothing replaced is kept.
    #[must_use]
    pub fn for_tags(self) -> Self {
        Self {
            contents: Contents::Tags,
            retention_ttl: Duration::ZERO,
            retention_records: 1,
            ..self
        }
    }
}

/// What a storage keeps, one file per object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contents {
    /// Archives of OCI repositories, which are served.
    Artifacts,
    /// Tags of image repositories.
    Tags,
}

impl Contents {
    /// The kind's folder below the root.
    pub(super) const fn folder(self) -> &'static str {
        match self {
            Self::Artifacts => "ocirepository",
            Self::Tags => "imagerepository",
        }
    }

    /// The folder below the root of what is being written; emptied at the start.
    pub(super) const fn staging(self) -> &'static str {
        match self {
            Self::Artifacts => ".staging",
            Self::Tags => ".staging-tags",
        }
    }
}

/// What an object has in storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nothing.
    Absent,
    /// The artifact of this record, verified, and served.
    Stored(Arc<Record>),
    /// There was an artifact, but its file is gone or damaged. It is not served any more; build it again. Said once.
    Lost(Arc<Record>, Loss),
}

/// What happened to a lost artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// The file is not there.
    #[error("disappeared from storage")]
    Missing,
    /// The file's digest is not the recorded one.
    #[error("does not have the recorded digest")]
    Damaged,
}

/// A file that may be served, opened.
#[derive(Debug)]
pub struct ServedFile {
    /// Positioned at its first byte.
    pub file: File,
    /// Bytes.
    pub size: u64,
    /// When it was written.
    pub modified: Timestamp,
    /// `sha256:<hex>` of its bytes.
    pub digest: String,
}

/// Sums for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Objects with an artifact.
    pub objects: u64,
    /// Files, retained ones included.
    pub files: u64,
    /// Bytes of these files.
    pub bytes: u64,
}

/// What a sweep took away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Directories of objects that exist no more, or under another UID.
    pub objects: u64,
    /// Files that no record names.
    pub files: u64,
}

/// The artifact storage. Clones share it.
#[derive(Debug, Clone)]
pub struct Storage(Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) config: StorageConfig,
    pub(super) disk: Disk,
    pub(super) slots: Slots,
}

impl Storage {
    /// Opens the storage below `config.root` and removes what unfinished writes of an earlier process left.
    pub fn open(config: StorageConfig) -> Result<Self, StorageError> {
        let disk = Disk::open(config.root.clone(), config.contents)?;
        Ok(Self(Arc::new(Inner {
            config,
            disk,
            slots: Slots::default(),
        })))
    }

    /// Where large temporary files may go: same volume, emptied at the next start.
    pub fn staging_path(&self) -> PathBuf {
        self.0.disk.staging_path()
    }

    /// Bytes that are free on the storage's volume; none when the volume cannot be asked.
    pub fn free_bytes(&self) -> Option<u64> {
        self.0.disk.free_bytes()
    }

    /// The path that always names the current artifact of an object: the tail of `status.url`.
    pub fn latest_path(&self, key: &ObjectKey) -> String {
        self.0.disk.path(key, LATEST)
    }

    /// What a pass begins with. Says that the object of this key now has this `uid`, wipes what another UID left, drops
    /// retained files that are due, and verifies the artifact.
    ///
    /// Costs one `stat` when nothing has changed; a full hash on the first pass of this process, when size or time of
    /// the file are not the recorded ones, and every 24 hours.
    pub fn begin_pass(&self, key: &ObjectKey, uid: &str, now: Timestamp) -> Result<Standing, StorageError> {
        self.0.begin_pass(key, uid, now)
    }

    /// What [`Storage::begin_pass`] would answer, if that takes no more than one `stat`: the object had a pass here before
    /// and nothing is due. Does not block beyond that.
    pub fn at_rest(&self, key: &ObjectKey, uid: &str, now: Timestamp) -> Option<Arc<Record>> {
        self.0.at_rest(key, uid, now)
    }

    /// A new file for an object's artifact, refused when the volume is too full. Dropped without commit it is removed.
    pub fn stage(&self, key: &ObjectKey) -> Result<Staged, StorageError> {
        self.0.disk.require_free(self.0.config.min_free_percent)?;
        Staged::create(Arc::clone(&self.0), key.clone())
    }

    /// Takes over what a new look at the same contents found: binding and scan of `draft` replace the recorded ones, and the
    /// file stays. None when that is not what is stored for the object: then it has to be stored.
    pub fn confirm(&self, key: &ObjectKey, draft: &Draft) -> Result<Option<Arc<Record>>, StorageError> {
        self.0.confirm(key, draft)
    }

    /// The record of what is stored for `uid`, once one of its passes in this process has found it good. Looks at no file.
    pub fn current(&self, key: &ObjectKey, uid: &str) -> Option<Arc<Record>> {
        let slot = self.0.slots.find(key)?;
        let offer = slot.offer();
        let current = offer.current.as_ref()?;
        (offer.owner.as_deref() == Some(uid)).then(|| Arc::clone(&current.record))
    }

    /// The record of the object's current file, and the file, positioned at its first byte.
    pub fn open_current(&self, key: &ObjectKey, uid: &str) -> Option<(Arc<Record>, File)> {
        self.0.open_current(key, uid)
    }

    /// Removes everything of an object that was deleted. Does nothing if the key belongs to another UID by now. Returns
    /// whether it was removed.
    pub fn remove(&self, key: &ObjectKey, uid: &str) -> Result<bool, StorageError> {
        self.0.remove(key, uid)
    }

    /// Removes directories of objects for which `live` answers no UID or another one than the record's, and files that
    /// no record names. To be run at start (once all objects are known) and every 10 minutes.
    ///
    /// `live` is asked at the moment of each decision, with the object locked: it must not call the storage.
    pub fn sweep(&self, live: impl Fn(&ObjectKey) -> Option<String>) -> Result<SweepReport, StorageError> {
        self.0.sweep(&live)
    }

    /// The UID of the object that had a pass here under this key.
    pub fn owner(&self, key: &ObjectKey) -> Option<String> {
        let slot = self.0.slots.find(key)?;
        slot.offer().owner.as_deref().map(str::to_owned)
    }

    /// Removes everything of this key if `live` knows no UID for it, asked with the object locked as by [`Storage::sweep`].
    pub fn release(&self, key: &ObjectKey, live: impl Fn(&ObjectKey) -> Option<String>) -> Result<(), StorageError> {
        self.0.release(key, &live)
    }

    /// Keys for which `live` answers nothing although a record is stored, with that record's UID. Reads those records.
    pub fn unclaimed(
        &self,
        live: impl Fn(&ObjectKey) -> Option<String>,
    ) -> Result<Vec<(ObjectKey, String)>, StorageError> {
        self.0.unclaimed(&live)
    }

    /// Opens the file at `path` (`<kind>/<namespace>/<name>/<file>`) if it may be served: named by the index, and of
    /// the size and time that the index holds.
    pub fn open_served(&self, path: &str) -> Option<ServedFile> {
        self.0.open_served(path)
    }

    /// Sums over what is stored. Walks the index in memory, not the disk.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        self.0.slots.for_each(|offer| {
            usage.objects += u64::from(offer.current.is_some());
            for file in offer.files() {
                usage.files += 1;
                usage.bytes += file.size;
            }
        });
        usage
    }
}

impl Inner {
    fn open_current(&self, key: &ObjectKey, uid: &str) -> Option<(Arc<Record>, File)> {
        let slot = self.slots.find(key)?;
        let offer = slot.offer();
        let current = offer.current.as_ref().filter(|_| offer.owner.as_deref() == Some(uid))?;
        let directory = self.disk.directory(key).ok()?;
        let file = directory.open_file(&current.record.file.name).ok()?;
        Some((Arc::clone(&current.record), file))
    }

    fn open_served(&self, path: &str) -> Option<ServedFile> {
        let rest = path.strip_prefix(self.disk.kind_folder())?.strip_prefix('/')?;
        let (namespace, rest) = rest.split_once('/')?;
        let (name, wanted) = rest.split_once('/')?;
        let key = ObjectKey::new(namespace, name).ok()?;
        let slot = self.slots.find(&key)?;
        // Held until the file is open: a commit changes the file and its facts under the same lock.
        let offer = slot.offer();
        let on_offer = if wanted == LATEST {
            &offer.current.as_ref()?.record.file
        } else {
            offer.files().find(|file| file.name == wanted)?
        };
        let file = self
            .disk
            .directory(&key)
            .and_then(|directory| directory.open_file(&on_offer.name))
            .ok()?;
        let there = facts(&file).ok()?;
        (there.size == on_offer.size && there.mtime == on_offer.mtime).then(|| ServedFile {
            file,
            size: there.size,
            modified: there.mtime,
            digest: on_offer.digest.clone(),
        })
    }
}

#[cfg(test)]
#[path = "storage_tests.rs"]
mod tests;
