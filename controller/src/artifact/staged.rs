//! An artifact while it is written: a new file in the staging directory, hashed on the way, that becomes the object's
//! artifact in one step or goes away.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    sync::Arc,
};

use jiff::Timestamp;
use ring::digest::{Context, SHA256};

use super::{
    directory::facts,
    disk::digest_text,
    error::StorageError,
    key::ObjectKey,
    record::{Draft, Record, StoredFile},
    storage::Inner,
};

/// A file to write an archive into. Removed on drop unless [`Staged::commit`] succeeded.
pub struct Staged {
    storage: Arc<Inner>,
    key: ObjectKey,
    name: String,
    file: BufWriter<File>,
    hash: Context,
}

impl Staged {
    pub(super) fn create(storage: Arc<Inner>, key: ObjectKey) -> Result<Self, StorageError> {
        let name = storage.disk.staged_name();
        let file = storage
            .disk
            .staging
            .create_file(&name)
            .map_err(|source| storage.disk.failed("create", &storage.disk.path(&key, &name), source))?;
        Ok(Self {
            storage,
            key,
            name,
            file: BufWriter::with_capacity(64 * 1024, file),
            hash: Context::new(&SHA256),
        })
    }

    /// Makes what was written the artifact of the object, with `draft` as its record.
    ///
    /// The file is on disk (fsync) before it gets its name. Fails with [`StorageError::Superseded`] if the object's
    /// key does not belong to the draft's UID any more. What is replaced stays served until the next pass.
    pub fn commit(mut self, draft: Draft, now: Timestamp) -> Result<Arc<Record>, StorageError> {
        let name = draft.file_name()?;
        let settle = |file: &mut BufWriter<File>| {
            file.flush()?;
            file.get_ref().sync_all()?;
            facts(file.get_ref())
        };
        let facts = settle(&mut self.file).map_err(|source| {
            let path = self.storage.disk.path(&self.key, &name);
            self.storage.disk.failed("write", &path, source)
        })?;
        let digest = digest_text(self.hash.clone());
        let file = StoredFile {
            name,
            digest,
            size: facts.size,
            mtime: facts.mtime,
        };
        self.storage.commit(&self.key, &self.name, draft, file, now)
    }
}

impl Write for Staged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // After a commit there is nothing under this name.
        self.storage.disk.discard(&self.name);
    }
}

impl std::fmt::Debug for Staged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Staged")
            .field("key", &self.key)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
