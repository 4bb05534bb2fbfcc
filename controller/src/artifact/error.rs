//! What can go wrong with the storage, by what was being done, which is also what a condition's reason says.

use std::{io, path::PathBuf};

/// Why the storage refused or failed. Only [`StorageError::InvalidName`] and [`StorageError::InvalidRevision`] speak of
/// the caller's values; the rest speak of this machine or of a race that the next pass settles.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// A namespace or name that no Kubernetes object can have.
    #[error("'{0}' is not a valid object name")]
    InvalidName(String),
    /// The revision does not end in a digest.
    #[error("revision '{0}' does not end in a digest")]
    InvalidRevision(String),
    /// A directory could not be created or opened: `DirectoryCreationFailed`.
    #[error("failed to create directory '{}': {source}", path.display())]
    Directory {
        /// Which directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A stored file or the volume could not be looked at: `StatOperationFailed`.
    #[error("failed to stat '{}': {source}", path.display())]
    Stat {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file could not be written, read back, moved or removed: `ArchiveOperationFailed`.
    #[error("failed to {operation} '{}': {source}", path.display())]
    File {
        /// `write`, `move`, `remove`, ….
        operation: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Less of the volume is free than `--storage-min-free` asks: new artifacts wait, old ones are served.
    #[error("storage volume has less than {min_free_percent}% free")]
    Full {
        /// The flag's value.
        min_free_percent: u8,
    },
    /// The object was deleted, or recreated under another UID, while its pass ran. Nothing was stored.
    #[error("object was deleted or recreated while its artifact was built")]
    Superseded,
}
