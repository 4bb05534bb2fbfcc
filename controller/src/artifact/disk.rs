//! The storage's directories and files, one operation each, without knowledge of what is served:
//! `<root>/<kind>/<namespace>/<name>/` for files and records, `<root>/.staging/` for what is being written (each kind has
//! its own).

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use ring::digest::{Context, SHA256};
use rustix::io::Errno;

use super::{
    directory::Directory,
    error::StorageError,
    key::ObjectKey,
    record::{MAX_RECORD, Record},
    storage::Contents,
};

pub(super) const RECORD: &str = ".record.json";
pub(super) const LATEST: &str = "latest.tar.gz";
const LATEST_NEW: &str = ".latest.new";

/// The open root of a storage.
#[derive(Debug)]
pub(super) struct Disk {
    root_path: PathBuf,
    contents: Contents,
    pub(super) root: Directory,
    pub(super) staging: Directory,
    next_staged: AtomicU64,
}

impl Disk {
    /// Opens or creates the root, and empties the staging directory of what an earlier process left unfinished.
    pub(super) fn open(root_path: PathBuf, contents: Contents) -> Result<Self, StorageError> {
        let failed = |path: &Path, source| StorageError::Directory {
            path: path.to_owned(),
            source,
        };
        let root = Directory::root(&root_path).map_err(|source| failed(&root_path, source))?;
        let staging_path = root_path.join(contents.staging());
        root.remove(OsStr::new(contents.staging()))
            .map_err(|source| failed(&staging_path, source))?;
        let staging = root
            .open_or_create(contents.staging())
            .map_err(|source| failed(&staging_path, source))?;
        Ok(Self {
            root_path,
            contents,
            root,
            staging,
            next_staged: AtomicU64::new(0),
        })
    }

    pub(super) fn staging_path(&self) -> PathBuf {
        self.root_path.join(self.contents.staging())
    }

    pub(super) fn kind_folder(&self) -> &'static str {
        self.contents.folder()
    }

    /// Path of an object's file below the root.
    pub(super) fn path(&self, key: &ObjectKey, file: &str) -> String {
        format!("{}/{}/{}/{file}", self.kind_folder(), key.namespace(), key.name())
    }

    pub(super) fn failed(&self, operation: &'static str, below_root: &str, source: io::Error) -> StorageError {
        StorageError::File {
            operation,
            path: self.root_path.join(below_root),
            source,
        }
    }

    pub(super) fn stat_failed(&self, below_root: &str, source: io::Error) -> StorageError {
        StorageError::Stat {
            path: self.root_path.join(below_root),
            source,
        }
    }

    pub(super) fn directory(&self, key: &ObjectKey) -> io::Result<Directory> {
        self.root
            .open(self.kind_folder())?
            .open(key.namespace())?
            .open(key.name())
    }

    pub(super) fn create_directory(&self, key: &ObjectKey) -> Result<Directory, StorageError> {
        let create = || {
            let kind = self.root.open_or_create(self.kind_folder())?;
            kind.open_or_create(key.namespace())?.open_or_create(key.name())
        };
        // A sweep may take an empty namespace directory away between two steps; the second attempt makes it again.
        create()
            .or_else(|_| create())
            .map_err(|source| StorageError::Directory {
                path: self.root_path.join(self.path(key, "")),
                source,
            })
    }

    /// Removes the object's directory, and its namespace's if that is empty then.
    pub(super) fn wipe(&self, key: &ObjectKey) -> Result<(), StorageError> {
        let wipe = || {
            let kind = self.root.open(self.kind_folder())?;
            kind.open(key.namespace())?.remove(OsStr::new(key.name()))?;
            kind.remove_if_empty(OsStr::new(key.namespace()))
        };
        absent_is_fine(wipe()).map_err(|source| self.failed("remove", &self.path(key, ""), source))
    }

    pub(super) fn remove_file(&self, key: &ObjectKey, name: &str) -> Result<(), StorageError> {
        let removed = self
            .directory(key)
            .and_then(|directory| directory.remove(OsStr::new(name)));
        absent_is_fine(removed).map_err(|source| self.failed("remove", &self.path(key, name), source))
    }

    /// Removes what is neither the record, the link, nor among `known`. Returns how many.
    pub(super) fn remove_strangers(&self, key: &ObjectKey, known: &[&str]) -> Result<u64, StorageError> {
        let sort_out = || {
            let directory = self.directory(key)?;
            let mut removed = 0;
            for name in directory.names()? {
                if !known.iter().chain(&[RECORD, LATEST]).any(|own| name == **own) {
                    directory.remove(&name)?;
                    removed += 1;
                }
            }
            Ok(removed)
        };
        absent_is_fine(sort_out()).map_err(|source| self.failed("remove", &self.path(key, ""), source))
    }

    /// The record on disk, if it is whole and stands in the directory it speaks of. Fails only where the disk does: then
    /// nothing is known, and nothing may be wiped.
    pub(super) fn load(&self, key: &ObjectKey) -> Result<Option<Record>, StorageError> {
        let json = self
            .directory(key)
            .and_then(|directory| directory.read(RECORD, MAX_RECORD));
        let json = absent_is_fine(json).map_err(|source| self.failed("read", &self.path(key, RECORD), source))?;
        Ok(Record::parse(&json).filter(|record| {
            let name = record.file_name().unwrap_or_default();
            record.file.name == name && record.path == self.path(key, &name)
        }))
    }

    /// Writes a record to the staging directory and returns its name there.
    pub(super) fn stage_record(&self, record: &Record) -> Result<String, StorageError> {
        let name = self.staged_name();
        let write = || {
            let mut file = self.staging.create_file(&name)?;
            // Not waited for to be on disk, nor are the renames: after a crash of the machine a torn or an earlier record is
            // found to be that, and costs one more pull.
            file.write_all(&record.to_json()?)
        };
        match write() {
            Ok(()) => Ok(name),
            Err(source) => {
                self.discard(&name);
                Err(self.failed("write the record of", &record.path, source))
            }
        }
    }

    /// A name that nothing in the staging directory has.
    pub(super) fn staged_name(&self) -> String {
        format!(
            "{}-{}",
            std::process::id(),
            self.next_staged.fetch_add(1, Ordering::Relaxed)
        )
    }

    /// Removes a staged file. Where that fails, the next start mends it.
    pub(super) fn discard(&self, staged: &str) {
        drop(self.staging.remove(OsStr::new(staged)));
    }

    /// The link is for people who look into the volume; nothing here depends on it.
    pub(super) fn link_latest(&self, key: &ObjectKey, name: &str) {
        if self.contents != Contents::Artifacts {
            return;
        }
        let linked = self
            .directory(key)
            .and_then(|directory| directory.replace_symlink(LATEST, name, LATEST_NEW));
        if let Err(error) = linked {
            tracing::warn!(path = self.path(key, LATEST), %error, "could not replace the link to the latest artifact");
        }
    }

    /// Free bytes of the volume.
    pub(super) fn free_bytes(&self) -> Option<u64> {
        self.root.volume().map(|(free, _)| free).ok()
    }

    /// Fails when less than `percent` of the volume is free; 0 allows anything.
    pub(super) fn require_free(&self, percent: u8) -> Result<(), StorageError> {
        if percent == 0 {
            return Ok(());
        }
        let (free, total) = self.root.volume().map_err(|source| self.stat_failed("", source))?;
        if u128::from(free) * 100 < u128::from(total) * u128::from(percent) {
            return Err(StorageError::Full {
                min_free_percent: percent,
            });
        }
        Ok(())
    }
}

/// Nothing is there, or a symlink or something else that is not ours.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

pub(super) fn absent_is_fine<T: Default>(result: io::Result<T>) -> io::Result<T> {
    result.or_else(|error| {
        if is_absent(&error) {
            Ok(T::default())
        } else {
            Err(error)
        }
    })
}

/// `sha256:<hex>` of what is left to read.
pub(super) fn sha256_of(file: &mut File) -> io::Result<String> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = file.read(&mut buffer)?;
        match buffer.get(..read) {
            Some(bytes) if !bytes.is_empty() => context.update(bytes),
            _ => return Ok(digest_text(context)),
        }
    }
}

/// `sha256:<hex>` of everything the context was fed.
pub(super) fn digest_text(context: Context) -> String {
    use std::fmt::Write as _;
    context
        .finish()
        .as_ref()
        .iter()
        .fold(String::from("sha256:"), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}
