//! The tags of each ImageRepository on disk: `<storage>/imagerepository/<namespace>/<name>/tags.txt`, from 64 KiB on as
//! `tags.txt.gz`, with the record beside it. Everything here can be had again by a scan. All methods block.

use std::{
    io::{self, Read, Write},
    sync::Arc,
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use jiff::Timestamp;

use super::TagList;
use crate::artifact::{Binding, Draft, ObjectKey, Record, Scan, Standing, Storage, StorageConfig, StorageError};

/// Stores tags. Clones share it.
#[derive(Debug, Clone)]
pub struct TagStore(Storage);

/// Why tags could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum TagStoreError {
    /// The storage said no.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Reading or writing the list stopped.
    #[error("failed to {operation} the tags of {key}: {source}")]
    Io {
        /// `read` or `write`.
        operation: &'static str,
        /// Whose tags.
        key: ObjectKey,
        /// Why.
        source: io::Error,
    },
    /// The process is ending.
    #[error("reading the tags of {key} was interrupted")]
    Interrupted {
        /// Whose tags.
        key: ObjectKey,
    },
}

impl TagStore {
    /// Opens the folder of the tags on the volume of `config`, and removes what unfinished writes of an earlier process left.
    pub fn open(config: StorageConfig) -> Result<Self, StorageError> {
        Storage::open(config.for_tags()).map(Self)
    }

    /// What a pass begins with, see [`Storage::begin_pass`].
    pub fn begin_pass(&self, key: &ObjectKey, uid: &str, now: Timestamp) -> Result<Standing, StorageError> {
        self.0.begin_pass(key, uid, now)
    }

    /// The storage itself, for what goes with objects: removal, sweeps, usage.
    pub fn storage(&self) -> &Storage {
        &self.0
    }

    /// Stores the outcome of a scan made at `now`. The same tags as before cost a new record only.
    pub fn save(
        &self,
        key: &ObjectKey,
        tags: &TagList,
        binding: Binding,
        requested_at: Option<String>,
        now: Timestamp,
    ) -> Result<Arc<Record>, TagStoreError> {
        let scan = Scan {
            time: now,
            tag_count: tags.len(),
            bytes: u64::try_from(tags.text().len()).unwrap_or(u64::MAX),
            latest_tags: tags.latest(),
            requested_at,
        };
        let is_compressed = scan.is_compressed();
        let draft = Draft {
            binding,
            revision: tags.revision().to_owned(),
            scan: Some(Box::new(scan)),
            ..Draft::default()
        };
        if let Some(record) = self.0.confirm(key, &draft)? {
            return Ok(record);
        }
        let mut staged = self.0.stage(key)?;
        let written = if is_compressed {
            let mut encoder = GzEncoder::new(&mut staged, Compression::default());
            let written = encoder.write_all(tags.text().as_bytes());
            written.and_then(|()| encoder.finish().map(drop))
        } else {
            staged.write_all(tags.text().as_bytes())
        };
        written.map_err(|source| failed("write", key, source))?;
        Ok(staged.commit(draft, now)?)
    }

    /// The stored tags of the object with this UID; none without a scan, or where the file is not what was stored.
    pub fn read(&self, key: &ObjectKey, uid: &str) -> Result<Option<(Arc<Record>, TagList)>, TagStoreError> {
        let Some((record, file)) = self.0.open_current(key, uid) else {
            return Ok(None);
        };
        let Some(scan) = &record.scan else {
            return Ok(None);
        };
        let mut text = String::new();
        // One more than there should be shows a longer file.
        let limit = scan.bytes.saturating_add(1);
        let read = if scan.is_compressed() {
            GzDecoder::new(io::BufReader::new(file))
                .take(limit)
                .read_to_string(&mut text)
        } else {
            file.take(limit).read_to_string(&mut text)
        };
        match read {
            Ok(_) => {}
            // Not the bytes that were stored.
            Err(error) if is_damage(&error) => return Ok(None),
            Err(error) => return Err(failed("read", key, error)),
        }
        let tags = TagList::of_ordered(text.into_boxed_str());
        Ok((tags.revision() == record.revision).then_some((record, tags)))
    }
}

fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof)
}

fn failed(operation: &'static str, key: &ObjectKey, source: io::Error) -> TagStoreError {
    TagStoreError::Io {
        operation,
        key: key.clone(),
        source,
    }
}

#[cfg(test)]
mod tests;
